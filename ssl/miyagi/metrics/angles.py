"""How far directions are from the true ones, in degrees (Fouhey et al., ICCV 2013)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def angles(predicted: NDArray[Any], truth: NDArray[Any]) -> Floats:
    """The angle between unit vectors (... x 3 each), in degrees."""
    cosine = (predicted.astype(np.float64) * truth).sum(-1)
    found: Floats = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return found


def pooled_median(images: list[Floats]) -> Callable[[Floats], Floats]:
    """The median over the pixels of all images, as `metrics.bootstrap.weighted` wants it.

    Args:
        images: the angles of each image's pixels.

    Returns:
        R x N counts -> R medians; the middle two are averaged, as by `numpy.median`. NaN where nothing counts.
    """
    values = np.concatenate(images)
    order = np.argsort(values, kind="stable")
    values, owner = values[order], np.repeat(np.arange(len(images)), [len(image) for image in images])[order]

    def median(counts: Floats) -> Floats:
        found = np.full(len(counts), np.nan)
        for row, weights in enumerate(counts):
            total = np.cumsum(weights[owner])
            if len(total) and total[-1]:
                middle = [(total[-1] - 1) // 2, total[-1] // 2]
                found[row] = values[np.searchsorted(total, middle, side="right")].mean()
        return found

    return median
