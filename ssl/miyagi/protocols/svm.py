"""One-vs-rest linear SVMs on l2-normalised features, their costs chosen by cross-validation on the training split.

    minimise for each class  1/2 |w|^2 + C sum_i max(0, 1 - y_i (w x_i + b))^2

The protocol of VOC07 (Owens et al., ECCV 2016; Goyal et al., ICCV 2019). Where an image has one label, all classes
share a cost and the score is top-1 accuracy. Where it has several, each class has its own cost, and the score is mAP,
the mean of the classes' average precision; a row's condition says of which kind (metrics/average_precision.py). The
validation split takes part in no choice: it is scored as the test split is.

Goyal et al.'s trainer for VOC07 counts the loss of positives twice: `positive_weight: 2`. VOC's evaluation also leaves
out, class by class, images in which all objects of the class are difficult; a `labels.csv` cannot say so, and here such
an image is a positive where it lists the class, else a negative.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miyagi.metrics.average_precision import average_precision
from miyagi.metrics.bootstrap import weighted
from miyagi.metrics.knn import normalize
from miyagi.protocols.base import Bank, DoesNotApply, Features, Fitted, Outcome, best_on_val, classify
from miyagi.settings import Frozen, Positive

Floats = NDArray[np.float64]
Score = Callable[[Any, NDArray[np.float32], NDArray[Any]], float]
"""A model, and images and labels that it has not seen, to how good it is on them."""


class Settings(Frozen):
    """Settings of the SVM protocol."""

    c: list[Positive] = Field([0.01, 0.1, 1.0, 10.0], min_length=1, description="chosen from")
    folds: int = Field(3, ge=2, description="of the cross-validation, stratified")
    max_iterations: int = Field(2000, ge=1)
    tolerance: float = Field(1e-4, gt=0)
    positive_weight: float = Field(
        1.0, gt=0, description="several labels: of a positive image's loss; 2 in VOC 2007's protocol"
    )
    ap: Literal["integral", "11_point"] = Field("integral", description="of mAP; VOC 2007 took 11 points")
    layers: list[str] = Field(["encoder"], min_length=1)


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy, or mAP where an image has several labels, in percent; `seed` has no effect.

    Raises:
        DoesNotApply: a class has fewer training images, or lacks fewer, than there are folds; or a split has no label.
    """
    train = bank.labels("train")
    if train.ndim == 1:
        _check_folds(*np.unique(train, return_counts=True), settings.folds)
        return classify(bank, settings.layers, lambda train, _: _one_label(train, settings))
    positives = train.sum(0, dtype=np.int64)
    _check_folds(np.arange(train.shape[1]), np.minimum(positives, len(train) - positives), settings.folds)
    return [outcome for layer in settings.layers for outcome in _several_labels(bank, layer, settings)]


def _one_label(train: Features, settings: Settings) -> Fitted:
    x = normalize(train.x)
    c, rule = _choose(x, train.y, settings, lambda model, x, y: float((model.predict(x) == y).mean()))
    model = _fit(x, train.y, c, settings)
    return Fitted(lambda x: model.predict(normalize(x)), {"c": c}, f"c {rule}")


def _several_labels(bank: Bank, layer: str, settings: Settings) -> list[Outcome]:
    def precision(model: Any, x: NDArray[np.float32], y: NDArray[np.uint8]) -> float:
        return float(average_precision(model.decision_function(x), y == 1, settings.ap)[0])

    train = bank.split("train", layer)
    x = normalize(train.x)
    weight = settings.positive_weight
    choices = [_choose(x, positive, settings, precision, weight) for positive in train.y.T]
    models = [_fit(x, positive, c, settings, weight) for positive, (c, _) in zip(train.y.T, choices, strict=True)]
    found = []
    for split in ("val", "test"):
        images, labels = bank.split(split, layer)
        scores = np.stack([model.decision_function(normalize(images)) for model in models], axis=1)
        each = _precisions(scores, labels == 1, settings, np.ones((1, len(images))))[0]
        if np.isnan(each).all():
            raise DoesNotApply(f"no image of {split} has a label; mAP has no meaning there")
        span, redrawn = weighted(partial(_mean_precision, scores, labels == 1, settings), [len(images)])
        found.append(
            Outcome(
                layer, split, "map", each[np.isfinite(each)], f"c of each class {choices[0][1]}",
                {"c": [c for c, _ in choices]}, condition={"ap": settings.ap}, n=len(images),
                span=span, redrawn=redrawn,
            )
        )  # fmt: skip
    return found


def _precisions(scores: Floats, positive: NDArray[np.bool_], settings: Settings, counts: Floats) -> Floats:
    """R x C average precisions, in percent, for R x N counts of the images; NaN where a class has no positive."""
    pairs = zip(scores.T, positive.T, strict=True)
    return np.stack([100 * average_precision(*pair, settings.ap, counts) for pair in pairs], axis=1)


def _mean_precision(scores: Floats, positive: NDArray[np.bool_], settings: Settings, counts: Floats) -> Floats:
    """R means over the classes that have a positive."""
    found: Floats = np.nanmean(_precisions(scores, positive, settings, counts), axis=1)
    return found


def _choose(
    x: NDArray[np.float32], y: NDArray[Any], settings: Settings, score: Score, weight: float = 1.0
) -> tuple[float, str]:
    """The cost with the best mean score on the held-out folds, and the rule; see `_fit`."""
    from sklearn.model_selection import StratifiedKFold

    folds = list(StratifiedKFold(settings.folds).split(x, y)) if len(settings.c) > 1 else []

    def mean_score(c: float) -> float:
        return sum((score(_fit(x[fit], y[fit], c, settings, weight), x[held], y[held]) for fit, held in folds), 0.0)

    return best_on_val(sorted(settings.c), mean_score, f"{settings.folds} folds of train")


def _fit(x: NDArray[np.float32], y: NDArray[Any], c: float, settings: Settings, weight: float = 1.0) -> Any:
    """One-vs-rest SVMs; `weight` is that of the losses of label 1."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    model = LinearSVC(
        C=c,
        class_weight=None if weight == 1 else {1: weight},
        dual="auto",
        max_iter=settings.max_iterations,
        tol=settings.tolerance,
        random_state=0,
    )  # the state orders the coordinates of the dual, which more dimensions than images take
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # judged on the held-out folds like any other solution
        return model.fit(x, y)


def _check_folds(classes: NDArray[np.int64], counts: NDArray[np.int64], folds: int) -> None:
    if counts.min() < folds:
        raise DoesNotApply(
            f"evaluate.svm.folds: {folds} folds, but class {classes[counts.argmin()]} tells {counts.min()} training "
            "image(s) apart; ask for fewer folds, or take more images (train_limit)"
        )
