"""Do two protocols rank the same encoders alike?

    tau_b = sum over pairs of sign(a_i - a_j) sign(b_i - b_j) / sqrt(pairs untied in a x pairs untied in b)

(Kendall, 1945). 1: the same order, -1: the opposite, 0: no agreement. A pair that is tied in one ranking counts for
neither side.

What other encoders of the same kind would give is told by a model, not by redrawing the few that there are: any redrawn
set of a perfect order is in perfect order, so a bootstrap would call four encoders proof. The model: up to monotone
transformations, which no ranking sees, N encoders are drawn from a bivariate normal with correlation sin(pi tau / 2),
whose Kendall's tau is tau (Kruskal, JASA 1958). With b = rho a + sqrt(1 - rho^2) e, a pair agrees if and only if

    tau > (2 / pi) arctan(-(e_i - e_j) / (a_i - a_j)),

so one simulation serves every tau: the k-th smallest of a set's N (N - 1) / 2 such values is the true tau from which on
at least k of its pairs agree.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
DRAWS, VALUES = 20_000, 4_000_000
"""Simulated sets, and their pairs at the most; of many encoders fewer sets, 1,000 at least."""


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b of two scores of the same N things; NaN where all are tied in one of them.

    Raises:
        ValueError: `a` and `b` are not N >= 2 finite numbers each.
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 2 or not np.isfinite([left, right]).all():
        raise ValueError(f"expected two times N >= 2 finite numbers, got arrays of shapes {left.shape}, {right.shape}")
    first, second = np.triu_indices(len(left), 1)
    signs_a, signs_b = np.sign(left[first] - left[second]), np.sign(right[first] - right[second])
    untied = np.sqrt((signs_a**2).sum() * (signs_b**2).sum())
    return float((signs_a * signs_b).sum() / untied) if untied else np.nan


def kendall_interval(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Kendall's tau-b with the interval of the true taus under which it is no surprise, see the module.

    low is where P(tau_N >= observed) = (1 - level) / 2, high where P(tau_N <= observed) is; with few things the
    interval is wide, as it should be.

    Returns:
        tau-b, and the interval's ends, low before high; all NaN where all are tied in `a` or in `b`.

    Raises:
        ValueError: what `kendall` refuses.
    """
    tau, turns = kendall(a, b), _turns(len(np.asarray(a)))
    if np.isnan(tau):
        return tau, tau, tau
    tail = (1 - level) / 2
    least, most = _agreeing(tau, turns)
    low = np.quantile(turns[:, least - 1], tail) if least else -1.0
    high = np.quantile(turns[:, most], 1 - tail) if most < turns.shape[1] else 1.0
    return tau, float(low), float(high)


def kendall_beyond(a: ArrayLike, b: ArrayLike, threshold: float) -> tuple[float, float]:
    """One-sided p-values of "the true tau is at most `threshold`" and of "it is at least `threshold`".

    P(tau_N >= observed) and P(tau_N <= observed) where the true tau is `threshold`, see the module, each as
    (simulated sets + 1) / (all + 1); both are 1 where all are tied in `a` or in `b`.

    Raises:
        ValueError: what `kendall` refuses.
    """
    tau, turns = kendall(a, b), _turns(len(np.asarray(a)))
    if np.isnan(tau):
        return 1.0, 1.0
    least, most = _agreeing(tau, turns)
    above = (turns[:, least - 1] < threshold).sum() if least else len(turns)
    below = (turns[:, most] > threshold).sum() if most < turns.shape[1] else len(turns)
    return (int(above) + 1) / (len(turns) + 1), (int(below) + 1) / (len(turns) + 1)


def kendall_detectable(n: int, threshold: float, level: float, power: float = 0.8) -> tuple[float | None, float | None]:
    """The true taus of n things that would be found beyond `threshold` with probability `power`.

    Args:
        n: encoders that are ranked, 2 at least.
        threshold: see `kendall_beyond`.
        level: of the one-sided test.
        power: of the test at the taus that are returned.

    Returns:
        The smallest tau that would be found above the threshold, and the largest that would be found below it; None
        where not even a perfect or an opposite order of n things would do.
    """
    turns = _turns(n)
    above = np.flatnonzero(((turns < threshold).sum(0) + 1) / (len(turns) + 1) < level)
    below = np.flatnonzero(((turns > threshold).sum(0) + 1) / (len(turns) + 1) < level)
    return (
        float(np.quantile(turns[:, above[0]], power)) if len(above) else None,
        float(np.quantile(turns[:, below[-1]], 1 - power)) if len(below) else None,
    )


@lru_cache(maxsize=8)  # up to 32 MB each
def _turns(n: int) -> Floats:
    """Draws x N (N - 1) / 2: for each simulated set the true taus at which its pairs turn to agreement, ascending."""
    first, second = np.triu_indices(n, 1)
    draws = min(DRAWS, max(1000, VALUES // max(len(first), 1)))
    a, e = np.random.default_rng(0).normal(size=(2, draws, n))
    turns: Floats = 2 / np.pi * np.arctan(-(e[:, first] - e[:, second]) / (a[:, first] - a[:, second]))
    turns.sort(axis=1)
    return turns


def _agreeing(tau: float, turns: Floats) -> tuple[int, int]:
    """How many pairs agree at least where tau_N >= tau, and at the most where tau_N <= tau; a tie counts half."""
    pairs = turns.shape[1] * (tau + 1) / 2
    return int(np.ceil(pairs - 1e-9)), int(np.floor(pairs + 1e-9))
