"""The linear classifiers that protocols fit to frozen features, each with its hyper-parameters chosen on validation.

Both see z = (f(x) - mean) / std over the training split, which is BatchNorm without its affine part (He et al., CVPR
2022): features in other units are the same features.

    logistic   minimise 1/2 |W|^2 + C sum_i -log softmax(W z_i + b)[y_i], by L-BFGS; convex, so no learning rate in it
    sgd        minimise mean_i -log softmax(W z_i + b)[y_i] + decay/2 |W|^2, as papers train their last layer
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miyagi.errors import UserError
from miyagi.protocols.base import Features, Fitted, Linear, best_on_val

Labels = NDArray[np.int64]


class Scaler:
    """Standardises with the mean and deviation of `x` (N x D); a dimension that never varies is only centred."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        self.mean, std = x.mean(0), x.std(0)
        self.std = np.where(std > 0, std, 1)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = (x.astype(np.float64) - self.mean) / self.std
        return scaled

    def undone(self, linear: Linear) -> Linear:
        """What gives for features as they are what `linear` gives for standardised ones."""
        weight = linear.weight / self.std
        return Linear(weight, linear.bias - weight @ self.mean, linear.classes)


def logistic(
    train: Features, val: Features, c: Sequence[float], max_iterations: int = 1000, tolerance: float = 1e-3
) -> Fitted:
    """Multinomial logistic regression; each C starts from the last one's solution, the best on validation is kept.

    Args:
        train, val: the splits to fit to and to choose by.
        c: inverse regularisation, chosen from.
        max_iterations: of L-BFGS.
        tolerance: the largest gradient at which L-BFGS stops.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scale = Scaler(train.x)
    z_train, z_val = scale(train.x), scale(val.x)
    model = LogisticRegression(max_iter=max_iterations, tol=tolerance, warm_start=True)
    solutions, iterations = {}, {}
    for value in sorted(c):
        model.set_params(C=value)
        with warnings.catch_warnings():
            # A solution that stopped early is judged on validation like any other; `iterations` in the row shows it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(z_train, train.y)
        weight, bias = model.coef_.copy(), model.intercept_.copy()
        if len(weight) == 1:  # two classes: scikit-learn keeps the second one's row, the first one's is 0
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        solutions[value] = Linear(weight, bias, model.classes_)
        iterations[value] = int(model.n_iter_.max())
    best, rule = best_on_val(sorted(c), lambda value: float((solutions[value].labels(z_val) == val.y).mean()))
    chosen = {"c": best, "iterations": iterations[best]}
    return Fitted(lambda x: solutions[best].labels(scale(x)), chosen, f"c {rule}", scale.undone(solutions[best]))


def sgd(
    train: Features,
    val: Features,
    lr: Sequence[float],
    weight_decay: Sequence[float],
    epochs: int,
    batch_size: int,
    momentum: float,
    seed: int,
) -> Fitted:
    """Stochastic gradient descent from 0 with a cosine schedule; learning rate and decay are chosen on validation.

    Args:
        train, val: the splits to fit to and to choose by.
        lr: learning rates, chosen from.
        weight_decay: chosen from, with every learning rate; on W and b.
        epochs, batch_size, momentum: of each run.
        seed: of the order of the images.

    Raises:
        UserError: every candidate diverged.
    """
    scale = Scaler(train.x)
    z_train, z_val = (scale(x).astype(np.float32) for x in (train.x, val.x))
    candidates = [(rate, decay) for rate in lr for decay in weight_decay]
    solutions = dict(
        zip(candidates, _descend(z_train, train.y, candidates, epochs, batch_size, momentum, seed), strict=True)
    )
    finite = {key: bool(np.isfinite(solution.weight).all()) for key, solution in solutions.items()}

    def accuracy(key: tuple[float, float]) -> float:
        """Less than any where it diverged, which would be right on every image of the first class."""
        return float((solutions[key].labels(z_val) == val.y).mean()) if finite[key] else -1.0

    best, rule = best_on_val(candidates, accuracy)
    if not finite[best]:
        raise UserError(f"evaluate.linear.sgd.lr: training diverged at every rate of {list(lr)}; add lower ones")
    chosen = {"lr": best[0], "weight_decay": best[1]}
    return Fitted(lambda x: solutions[best].labels(scale(x).astype(np.float32)), chosen, f"lr and weight_decay {rule}")


def _descend(
    z: NDArray[np.float32],
    y: Labels,
    candidates: Sequence[tuple[float, float]],
    epochs: int,
    batch_size: int,
    momentum: float,
    seed: int,
) -> list[Linear]:
    """A solution for each (learning rate, decay): all of them side by side, so that a batch is multiplied once."""
    classes, target = np.unique(y, return_inverse=True)
    x = np.c_[z, np.ones(len(z), np.float32)]  # the bias is the last row
    shape = (x.shape[1], len(candidates), len(classes))
    weight, velocity = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rate, decay = (np.array(values, np.float32)[None, :, None] for values in zip(*candidates, strict=True))
    steps, step = epochs * math.ceil(len(x) / batch_size), 0
    for epoch in range(epochs):
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(len(x))
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            with np.errstate(over="ignore", invalid="ignore"):  # a rate that diverges is judged on validation too
                logits = (x[rows] @ weight.reshape(len(weight), -1)).reshape(len(rows), *shape[1:])
                p = np.exp(logits - logits.max(2, keepdims=True))
                p /= p.sum(2, keepdims=True)
                p[np.arange(len(rows)), :, target[rows]] -= 1
                gradient = (x[rows].T @ p.reshape(len(rows), -1)).reshape(shape) / np.float32(len(rows))
                velocity = momentum * velocity + gradient + decay * weight
                weight -= np.float32(0.5 * (1 + math.cos(math.pi * step / steps))) * rate * velocity
            step += 1
    return [Linear(weight[:-1, k].T.copy(), weight[-1, k].copy(), classes) for k in range(len(candidates))]
