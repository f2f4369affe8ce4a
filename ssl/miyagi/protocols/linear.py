"""A linear classifier on frozen features: multinomial logistic regression, its regularisation chosen on validation.

    minimise  1/2 |W|^2 + C sum_i -log softmax(W z_i + b)[y_i],  z = (f(x) - mean) / std over the training split

The problem is convex, so the number has no learning rate in it (scikit-learn's L-BFGS).
"""

import warnings
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miyagi.protocols.base import Bank, Features, Fitted, Outcome, best_on_val, classify
from miyagi.settings import Frozen


class Settings(Frozen):
    """Settings of the linear protocol."""

    c: list[Annotated[float, Field(gt=0)]] = Field(
        [0.001, 0.01, 0.1, 1.0], min_length=1, description="inverse regularisation, chosen from"
    )
    max_iterations: int = Field(300, ge=1)
    tolerance: float = Field(1e-3, gt=0, description="largest gradient at which L-BFGS stops")
    layers: list[str] = Field(["encoder"], min_length=1)


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy of logistic regression on each layer; the problem is convex, `seed` has no effect."""
    return classify(bank, settings.layers, lambda train, val: fit(train, val, settings))


def fit(train: Features, val: Features, settings: Settings) -> Fitted:
    """Fit on the training split for each C, each from the last one's solution; keep the best on validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, std = train.x.mean(0), train.x.std(0)
    std = np.where(std > 0, std, 1)

    def scale(x: NDArray[np.float32]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = (x.astype(np.float64) - mean) / std
        return scaled

    z_train, z_val = scale(train.x), scale(val.x)
    model = LogisticRegression(max_iter=settings.max_iterations, tol=settings.tolerance, warm_start=True)
    solutions = {}
    for c in sorted(settings.c):
        model.set_params(C=c)
        with warnings.catch_warnings():
            # A solution that stopped early is judged on validation like any other; `iterations` in the row shows it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(z_train, train.y)
        solutions[c] = (model.coef_.copy(), model.intercept_.copy(), int(model.n_iter_.max()))

    def predict(c: float, z: NDArray[np.float64]) -> NDArray[np.int64]:
        weight, bias, _ = solutions[c]
        scores = z @ weight.T + bias
        best = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)
        labels: NDArray[np.int64] = model.classes_[best]
        return labels

    c, rule = best_on_val(sorted(settings.c), lambda c: float((predict(c, z_val) == val.y).mean()))
    return Fitted(lambda x: predict(c, scale(x)), {"c": c, "iterations": solutions[c][2]}, f"c {rule}")
