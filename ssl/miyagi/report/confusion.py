"""Confusion matrices: which classes a probe takes for which, from the predictions that the protocol kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miyagi.report.tables import Predictions

MOST = 40
"""Classes above which a matrix would be no picture any more."""
WORST = 5


@dataclass(frozen=True)
class Confusion:
    """An experiment's matrix on the test split.

    Attributes:
        counts: C x C, true class by predicted class.
        worst: (true class, predicted class, share of the true class's images), the largest first.
    """

    counts: NDArray[np.int64]
    worst: Sequence[tuple[int, int, float]]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of each true class's images, the share that was taken for each class; a class without images has zeros."""
        shares: NDArray[np.float64] = self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)
        return shares


def confusion(kept: Predictions, dataset: str, layer: str, classes: int) -> Confusion | None:
    """The matrix of what a protocol kept (protocols/rows.py); None where it kept no labels, or there are too many.

    Args:
        kept: the protocol's tensors.
        dataset, layer: whose predictions.
        classes: C.
    """
    predicted, labels = kept.get(f"{dataset}.test.{layer}"), kept.get(f"{dataset}.test.labels")
    if predicted is None or labels is None or labels.ndim != 1 or classes > MOST:
        return None
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    wrong = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong.ravel(), kind="stable")[:WORST]
    worst = [(*divmod(int(i), classes), float(wrong.ravel()[i])) for i in order if wrong.ravel()[i] > 0]
    return Confusion(counts, worst)
