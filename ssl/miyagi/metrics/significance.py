"""Tests of whether two classifiers differ, and their correction where many pairs are tested.

McNemar's exact test (McNemar, 1947) looks at the images on which exactly one of the two is right: if neither is
better, each of those falls to either side like a coin. Holm's correction (Holm, 1979) bounds the chance that even one
of the pairs called different is not.
"""

import numpy as np
from numpy.typing import ArrayLike


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of McNemar's exact test; 1 where the two never differ.

    Args:
        a: N scores, one an image: the larger is the better, e.g. 0 or 100.
        b: N scores of the same images in the same order.

    Raises:
        ValueError: `a` and `b` are not of one length.
    """
    left, right = np.asarray(a), np.asarray(b)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(f"paired scores come from the same images, yet their shapes are {left.shape}, {right.shape}")
    from scipy.stats import binomtest

    wins, losses = int((left > right).sum()), int((left < right).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def paired_t(differences: ArrayLike) -> float:
    """Two-sided p-value of Student's t-test that the mean of n >= 2 paired differences (one a seed) is 0.

    Differences without any spread: 1 where they are 0, else 0.

    Raises:
        ValueError: fewer than two differences.
    """
    found = np.asarray(differences, np.float64)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError("a test over seeds needs at least two seeds")
    from scipy.stats import t

    error = float(found.std(ddof=1)) / len(found) ** 0.5
    if error == 0:
        return float(found.mean() == 0)
    return float(2 * t.sf(abs(float(found.mean())) / error, len(found) - 1))


def holm(p: ArrayLike) -> list[float]:
    """Holm's step-down adjusted p-values, in the order of the M p-values given.

    adjusted of the k-th smallest = max over j <= k of min(1, (M - j + 1) p_(j)).
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(np.minimum(1, (len(values) - np.arange(len(values))) * values[order]))
    adjusted = np.empty_like(values)
    adjusted[order] = stepped
    return [float(value) for value in adjusted]
