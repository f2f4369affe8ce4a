import pytest

from miyagi.metrics.corruption_error import mean_corruption_error


def test_by_hand():
    # Errors 40 of 20, and 10 of 40: 200 % and 25 %.
    assert mean_corruption_error({"a": 60.0, "b": 90.0}, {"a": 80.0, "b": 60.0}) == pytest.approx(112.5)
    assert mean_corruption_error({"a": 80.0}, {"a": 80.0}) == 100


@pytest.mark.parametrize(("mine", "floor"), [({"a": 1.0}, {"b": 1.0}), ({}, {}), ({"a": 90.0}, {"a": 100.0})])
def test_what_has_no_meaning(mine, floor):
    with pytest.raises(ValueError, match=r"not the same corruptions|no error"):
        mean_corruption_error(mine, floor)
