"""Intervals: how far a number would move with other images (bootstrap) or other seeds (Student's t).

The percentile bootstrap (Efron, 1979) redraws the N images with replacement, takes the mean of each redrawn set, and
reads the interval off the quantiles of those means. Two encoders seen on the same images are compared on their
difference image by image: how hard an image is cancels out, so the paired interval is the narrower one.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Redrawn = NDArray[np.float32]
"""A number of each redrawn set of images; NaN where a set has none."""
CHUNK = 2_000_000
"""Numbers that are drawn at once: bounds the memory at about 32 MB, whatever N and `draws` are."""


def interval(values: ArrayLike, draws: int = 2000, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Args:
        values: N numbers, one an image, in the unit that the interval shall have (0 or 100 for a hit in percent).
        draws: redrawn sets.
        level: share of the redrawn means that lies inside.
        seed: of the draws; equal arguments give equal bits.

    Returns:
        The interval's ends, low before high.

    Raises:
        ValueError: `values` is empty, is not one-dimensional or holds a NaN or an infinity; `level` is not in (0, 1).
    """
    numbers = _numbers(values, level)
    tail = (1 - level) / 2
    low, high = np.quantile(_means(numbers, draws, np.random.default_rng(seed)), [tail, 1 - tail])
    return float(low), float(high)


def paired(
    a: ArrayLike, b: ArrayLike, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The difference mean(a) - mean(b) over the same images, with its percentile bootstrap interval.

    Args:
        a: N numbers, one an image.
        b: N numbers of the same images in the same order.
        draws: redrawn sets of images.
        level: share of the redrawn differences that lies inside.
        seed: of the draws.

    Returns:
        The difference, and the interval's ends, low before high.

    Raises:
        ValueError: `a` and `b` differ in length, or hold what `interval` refuses.
    """
    left, right = _numbers(a, level), _numbers(b, level)
    if left.shape != right.shape:
        raise ValueError(f"paired values come from the same images, yet there are {left.size} and {right.size}")
    difference = left - right
    return float(difference.mean()), *interval(difference, draws, level, seed)


def weighted(
    statistic: Callable[[Floats], Floats], sizes: Sequence[int], draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[tuple[float, float, float], Redrawn]:
    """A number that is no mean over images (AUROC, mAP), with its percentile bootstrap interval.

    Which images are redrawn follows from `sizes`, `draws` and `seed` alone: of two encoders they are the same ones, so
    that `difference` can pair them.

    Args:
        statistic: R x N counts, how often each image is drawn in each of R sets, to R numbers; NaN where a set has none
            (no image of a class in it), and such sets are left out.
        sizes: images of each group, adding up to N; a group is redrawn for itself, so it keeps its size.
        draws: redrawn sets.
        level: share of the redrawn numbers that lies inside.
        seed: of the draws.

    Returns:
        The number for every image counted once and the interval's ends, low before high; and the redrawn numbers.

    Raises:
        ValueError: no redrawn set has a number, so the images have none either.
    """
    rng, total = np.random.default_rng(seed), sum(sizes)
    found = []
    step = max(1, CHUNK // total)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        groups = []
        for size in sizes:
            drawn = rng.integers(0, size, size=(rows, size)) + size * np.arange(rows)[:, None]
            groups.append(np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size))
        found.append(statistic(np.concatenate(groups, axis=1).astype(np.float64)))
    numbers = np.concatenate(found)
    defined = numbers[np.isfinite(numbers)]
    if not defined.size:
        raise ValueError(f"none of {draws} redrawn sets of {total} images has a number")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return (float(statistic(np.ones((1, total)))[0]), float(low), float(high)), numbers.astype(np.float32)


def difference(a: Redrawn, b: Redrawn, level: float = 0.95) -> tuple[float, float, float]:
    """How far a difference of two numbers of `weighted` would move with other images, and whether it is there at all.

        p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (R + 1)),   d = a - b, redrawn R times

    The percentile interval's test turned round; the 1 keeps p above 0 (Davison and Hinkley, 1997, section 4.2).

    Args:
        a, b: R numbers of the same redrawn sets each; a set where either is NaN is left out.
        level: share of the redrawn differences that lies inside.

    Returns:
        The interval's ends, low before high, and the two-sided p-value.

    Raises:
        ValueError: `a` and `b` differ in length, or no set is left.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired numbers come from the same redrawn sets, yet there are {a.size} and {b.size}")
    redrawn = a.astype(np.float64) - b
    redrawn = redrawn[np.isfinite(redrawn)]
    if not redrawn.size:
        raise ValueError("no redrawn set has both numbers")
    low, high = np.quantile(redrawn, [(1 - level) / 2, (1 + level) / 2])
    beyond = min(int((redrawn <= 0).sum()), int((redrawn >= 0).sum()))
    return float(low), float(high), min(1.0, 2 * (1 + beyond) / (redrawn.size + 1))


def t_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean over seeds with Student's t interval: mean +- t(1 - (1 - level) / 2; n - 1) * s / sqrt(n).

    Args:
        values: n numbers, one a seed.
        level: the interval's level.

    Returns:
        The mean, and the interval's ends, low before high. They coincide where all seeds agree.

    Raises:
        ValueError: fewer than two seeds (one seed says nothing about the spread), or what `interval` refuses.
    """
    from scipy.stats import t

    numbers = _numbers(values, level)
    if numbers.size < 2:
        raise ValueError("an interval over seeds needs at least two seeds")
    half = float(t.ppf((1 + level) / 2, numbers.size - 1)) * float(numbers.std(ddof=1)) / numbers.size**0.5
    mean = float(numbers.mean())
    return mean, mean - half, mean + half


def _numbers(values: ArrayLike, level: float) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"expected N finite numbers, got an array of shape {numbers.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1, got {level}")
    return numbers


def _means(values: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """The means of `draws` redrawn sets.

    How often each distinct value turns up in a redrawn set is multinomial with the values' shares as probabilities.
    Drawing those counts gives exactly the bootstrap's distribution, and for hits and misses (two values), or their
    paired differences (three), it costs a few numbers a draw instead of N. Else the images themselves are redrawn.
    """
    distinct, counts = np.unique(values, return_counts=True)
    few = distinct.size * 16 <= values.size
    means = np.empty(draws)
    step = max(1, CHUNK // (distinct.size if few else values.size))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        if few:
            drawn = rng.multinomial(values.size, counts / values.size, size=rows)
            means[start : start + rows] = drawn @ distinct / values.size
        else:
            means[start : start + rows] = values[rng.integers(0, values.size, size=(rows, values.size))].mean(axis=1)
    return means
