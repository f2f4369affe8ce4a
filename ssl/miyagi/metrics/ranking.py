"""Do two protocols rank the same encoders alike?

    tau_b = sum over pairs of sign(a_i - a_j) sign(b_i - b_j) / sqrt(pairs untied in a x pairs untied in b)

(Kendall, 1945). 1: the same order, -1: the opposite, 0: no agreement. A pair that is tied in one ranking counts for
neither side.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b of two scores of the same N things; NaN where all are tied in one of them.

    Raises:
        ValueError: `a` and `b` are not N >= 2 finite numbers each.
    """
    return float(_taus(*_pair(a, b))[0])


def kendall_interval(
    a: ArrayLike, b: ArrayLike, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Kendall's tau-b with its percentile bootstrap interval: what other encoders of the same kind would give.

    The N things are redrawn with replacement, as pairs. One drawn twice is tied with itself and says nothing, as in
    `kendall`. With few things the interval is wide, as it should be; a redrawn set without an untied pair is left out.

    Args:
        a: N numbers, one an encoder.
        b: N numbers of the same encoders.
        draws: redrawn sets.
        level: share of the redrawn taus that lies inside.
        seed: of the draws.

    Returns:
        tau-b, and the interval's ends, low before high; all NaN where all are tied in `a` or in `b`.

    Raises:
        ValueError: what `kendall` refuses.
    """
    left, right = _pair(a, b)
    tau = float(_taus(left, right)[0])
    if np.isnan(tau):
        return tau, tau, tau
    tail = (1 - level) / 2
    low, high = np.nanquantile(_redrawn(left, right, draws, seed), [tail, 1 - tail])
    return tau, float(low), float(high)


def kendall_beyond(
    a: ArrayLike, b: ArrayLike, threshold: float, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """One-sided bootstrap p-values of "tau is at most `threshold`" and of "tau is at least `threshold`".

    p = (redrawn taus on that side of the threshold + 1) / (redrawn taus + 1), see `kendall_interval`; both are 1 where
    all are tied in `a` or in `b`.

    Raises:
        ValueError: what `kendall` refuses.
    """
    found = _redrawn(*_pair(a, b), draws, seed)
    found = found[~np.isnan(found)]
    at_most, at_least = (int(side.sum()) for side in (found <= threshold, found >= threshold))
    return (at_most + 1) / (len(found) + 1), (at_least + 1) / (len(found) + 1)


def _redrawn(left: Floats, right: Floats, draws: int, seed: int) -> Floats:
    rows = np.random.default_rng(seed).integers(0, left.shape[1], size=(draws, left.shape[1]))
    return _taus(left[0][rows], right[0][rows])


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 2 or not np.isfinite([left, right]).all():
        raise ValueError(f"expected two times N >= 2 finite numbers, got arrays of shapes {left.shape}, {right.shape}")
    return left[None], right[None]


def _taus(a: Floats, b: Floats) -> Floats:
    """tau-b of each row of two draws x N arrays."""
    first, second = np.triu_indices(a.shape[1], 1)
    signs_a, signs_b = (np.sign(x[:, first] - x[:, second]) for x in (a, b))
    untied = np.sqrt((signs_a**2).sum(1) * (signs_b**2).sum(1))
    agreed = (signs_a * signs_b).sum(1)
    taus: Floats = np.divide(agreed, untied, out=np.full(len(untied), np.nan), where=untied > 0)
    return taus
