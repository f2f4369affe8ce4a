"""Average precision: how pure the images are that a score puts first.

With precision p and recall r at each distinct score, from the highest:

    integral   sum_n (r_n - r_(n-1)) p_n, the area under the curve as it is (scikit-learn's definition)
    11_point   mean over t = 0, 0.1 ... 1 of the largest p at r >= t (VOC 2007; Everingham et al., IJCV 2010)

The two differ by a point or more on the same scores, so a row always says which one it is.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["integral", "11_point"]


def average_precision(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], kind: Kind = "integral", weights: Floats | None = None
) -> Floats:
    """R numbers in [0, 1]; NaN where a row of weights leaves no positive.

    Args:
        scores: N, higher for what is more likely positive.
        positive: N.
        kind: see above.
        weights: R x N, how often each image counts; None: once (R = 1).
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # equal scores are one point of the curve
    weighted = weights[:, order]
    hits = np.add.reduceat(weighted * positive[order], starts, axis=1).cumsum(1)
    drawn = np.add.reduceat(weighted, starts, axis=1).cumsum(1)
    with np.errstate(invalid="ignore"):
        recall = hits / hits[:, -1:]
        precision = np.where(drawn > 0, hits / np.where(drawn > 0, drawn, 1), 0)
    if kind == "integral":
        found: Floats = (np.diff(recall, axis=1, prepend=0) * precision).sum(1)
        return found
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    points = [np.where(recall >= t / 10, best, 0).max(1) for t in range(11)]
    return np.where(hits[:, -1] > 0, np.mean(points, axis=0), np.nan)
