"""The mean corruption error (Hendrycks and Dietterich, ICLR 2019, section 4.2).

    CE_c = 100 sum_s E(s, c) / sum_s E_floor(s, c),   mCE = mean over the 15 common corruptions of CE_c

E is the top-1 error at severity s. The floor is a fixed network, here the supervised experiment: so hard corruptions do
not outweigh easy ones, and 100 is as robust as the floor.
"""

from collections.abc import Mapping


def mean_corruption_error(accuracy: Mapping[str, float], floor: Mapping[str, float]) -> float:
    """mCE in percent; lower is better.

    Args:
        accuracy: corruption -> top-1 accuracy, in percent, as the mean over severities.
        floor: likewise, of the floor.

    Raises:
        ValueError: the corruptions differ, or the floor makes no error under one, so that its unit is 0.
    """
    if set(accuracy) != set(floor) or not floor:
        raise ValueError(f"not the same corruptions: {sorted(accuracy)} and {sorted(floor)}")
    if max(floor.values()) >= 100:
        raise ValueError("the floor makes no error under a corruption: a share of nothing")
    return sum(100 * (100 - accuracy[name]) / (100 - floor[name]) for name in floor) / len(floor)
