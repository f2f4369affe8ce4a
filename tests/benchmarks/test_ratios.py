"""The arithmetic of the tables, against values worked out by hand."""

import pytest

from benchmarks.ratios import Spread, by_pairs, crossing, spread


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert spread([4.0, 1.0, 2.0, 3.0]) == Spread(2.5, 1.0, 4.0, 4)
    assert spread(value for value in [7.0]) == Spread(7.0, 7.0, 7.0, 1)
    assert spread([]) is None


def test_ratios_are_taken_within_a_round():
    ours, theirs = {"0": 10.0, "1": 90.0, "2": 40.0}, {"0": 5.0, "1": 10.0, "2": 10.0}
    # 2, 9 and 4; the ratio of the medians would be 40 / 10 as well, of the means 5.6
    assert by_pairs(ours, theirs) == Spread(4.0, 2.0, 9.0, 3)
    # A slow minute halves both of round 1 and changes nothing.
    assert by_pairs(ours | {"1": 45.0}, theirs | {"1": 5.0}) == Spread(4.0, 2.0, 9.0, 3)


def test_a_round_that_one_side_lacks_is_left_out():
    assert by_pairs({"0": 6.0, "1": 8.0}, {"1": 2.0, "2": 1.0}) == Spread(4.0, 4.0, 4.0, 1)
    assert by_pairs({"0": 6.0}, {}) is None


@pytest.mark.parametrize(
    ("curve", "level", "seconds"),
    [
        ([(0, 30), (10, 40), (20, 60)], 50, 15.0),  # half way between the second and the third
        ([(0, 30), (10, 40), (20, 60)], 40, 10.0),  # on a point
        ([(0, 30), (10, 40), (20, 60)], 30, 0.0),  # the floor has it already
        ([(0, 30), (10, 40), (20, 60)], 60.1, None),
        ([(0, 30), (8, 34)], 31, 2.0),  # from the floor: a quarter of the way
        ([(0, 30), (10, 50), (20, 40), (30, 70)], 45, 7.5),  # the first time, not the last
        ([], 1, None),
    ],
)
def test_crossing(curve, level, seconds):
    assert crossing(curve, level) == seconds
