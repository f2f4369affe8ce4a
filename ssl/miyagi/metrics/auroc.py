"""Area under the ROC curve: how often a positive scores above a negative, equals counted half.

    AUROC = P(s+ > s-) + 1/2 P(s+ = s-)

0.5 is chance, whatever the shares of positives and negatives.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_], weights: Floats | None = None) -> Floats:
    """R numbers in [0, 1]; NaN where a row of weights leaves no positive or no negative.

    Args:
        scores: N.
        positive: N.
        weights: R x N, how often each image counts; None: once (R = 1).
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of each run of equal scores
    weighted = weights[:, order]
    of_positives = np.add.reduceat(weighted * positive[order], starts, axis=1)
    of_negatives = np.add.reduceat(weighted * ~positive[order], starts, axis=1)
    below = of_negatives.cumsum(1) - of_negatives / 2
    with np.errstate(invalid="ignore"):
        found: Floats = (of_positives * below).sum(1) / (of_positives.sum(1) * of_negatives.sum(1))
    return found
