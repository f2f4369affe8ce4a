"""Mean intersection over union and pixel accuracy, from confusion matrices (Long et al., CVPR 2015)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion(predicted: NDArray[Any], truth: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many pixels of each true class (rows) were given each class (columns): classes x classes.

    Args:
        predicted: integers in [0, classes), of any shape.
        truth: of the same shape; a pixel whose label is outside of [0, classes) does not count.
        classes: how many.
    """
    counts = truth < classes
    pairs = truth[counts].astype(np.int64) * classes + predicted[counts]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """mean_c n_cc / (sum_j n_cj + sum_j n_jc - n_cc) over the classes that occur, in percent; NaN where none does.

    Args:
        matrix: ... x C x C confusion matrices; leading dimensions stay.
    """
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(-1) + matrix.sum(-2) - hit
    occurs = union > 0
    share = np.divide(hit, union, out=np.zeros(hit.shape), where=occurs)
    return _ratio(100.0 * share.sum(-1), occurs.sum(-1))


def pixel_accuracy(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """Share of pixels that were given their class, in percent; see `mean_iou`."""
    return _ratio(100.0 * np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)))


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)
    return found
