"""The arithmetic of the tables: medians with their range, ratios pair by pair, and when a curve reaches a level."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of n values, the smallest and the largest."""

    median: float
    low: float
    high: float
    n: int


def spread(values: Iterable[float]) -> Spread | None:
    """The median and the range of `values`; None where there are none."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found), len(found)) if found else None


def by_pairs(first: Mapping[str, float], second: Mapping[str, float]) -> Spread | None:
    """first / second of each round that has both: what a slow minute of the machine does to one, it does to its pair.

    Args:
        first, second: the round's name -> what was measured in it.
    """
    return spread(first[name] / second[name] for name in first if name in second)


def crossing(curve: Sequence[Sequence[float]], level: float) -> float | None:
    """When a curve first reaches `level`, linear between its points.

    Args:
        curve: (seconds, value) in the order of time.
        level: the value to reach.

    Returns:
        Seconds; None where no point reaches the level.
    """
    for number, (seconds, value) in enumerate(curve):
        if value >= level:
            if number == 0:
                return seconds
            before, least = curve[number - 1]
            return before + (seconds - before) * (level - least) / (value - least)
    return None
