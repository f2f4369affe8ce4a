"""What a cell says."""

import pytest

from benchmarks.ratios import Spread
from benchmarks.tables import at_least, number, shown, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.4, "1,230"),
        (999.6, "1,000"),
        (12.345, "12.3"),
        (0.012345, "0.0123"),
        (3, "3.00"),
        (0, "0.00"),
        (-2.5, "-2.50"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_shown():
    assert shown(Spread(2.0, 1.5, 3.25, 5), "x") == "2.00 (1.50 to 3.25) x"
    assert shown(Spread(2.0, 2.0, 2.0, 1), "s") == "2.00 s"
    assert shown(None, "x") == "-"


def test_a_target_is_held_against_the_median():
    assert at_least("a", 3, Spread(3.0, 0.1, 9.0, 3)).holds is True
    assert at_least("a", 3, Spread(2.999, 0.1, 9.0, 3)).holds is False
    assert at_least("a", 3, None).holds is None


def test_table():
    assert table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"
