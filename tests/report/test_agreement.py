"""Rank agreement of tables made by hand."""

from typing import Any

import pytest
from scipy.stats import kendalltau

from miyagi.report.agreement import agreements
from miyagi.report.differences import PARTS
from miyagi.report.tables import Group, Line

METHODS = {"random": "random", "supervised": "supervised", "a": "simclr", "b": "moco", "c": "rotation", "d": "npid"}
LINEAR = {"random": 10.0, "supervised": 90.0, "a": 70.0, "b": 75.0, "c": 60.0, "d": 65.0}
TUNED = {"random": 70.0, "supervised": 90.0, "a": 88.0, "b": 80.0, "c": 75.0, "d": 78.0}


def table(protocol: str, values: dict[str, float], layer: str = "encoder", **changes: Any) -> Group:
    lines = [Line("seed", name, METHODS[name], (0,), (value, value - 1, value + 1)) for name, value in values.items()]
    place = {"settings": "a" * 16, "dataset": "digits", "metric": "top1", **changes}
    return Group(protocol, place["settings"], place["dataset"], place["metric"], {layer: lines})


def test_linear_against_fine_tuning_without_the_floors() -> None:
    (found,) = agreements([table("linear", LINEAR), table("lowlabel", TUNED, "encoder, fraction 0.1, labels 1000")])
    assert (found.a, found.b) == ("linear", "lowlabel, fraction 0.1, labels 1000")
    assert (found.dataset, found.metric, found.experiments) == ("digits", "top1", 4)
    expected = kendalltau([70, 75, 60, 65], [88, 80, 75, 78]).statistic
    assert found.tau[0] == pytest.approx(expected) == pytest.approx(4 / 6)  # of six pairs one is turned round
    assert -1 <= found.tau[1] < found.tau[0] <= found.tau[2] <= 1


def test_an_error_is_turned_round() -> None:
    error = {name: 100 - value for name, value in LINEAR.items()}
    lines = [
        Line("seed", name, METHODS[name], (0,), (value, value, value), higher_is_better=False)
        for name, value in error.items()
    ]
    other = Group("corruptions", "b", "digits", "top1", {"encoder": lines})
    assert agreements([table("linear", LINEAR), other])[0].tau[0] == pytest.approx(1.0)


@pytest.mark.parametrize("change", [{"dataset": "other"}, {"metric": "mAP"}, {"layer": "head"}])
def test_what_does_not_meet(change: dict[str, Any]) -> None:
    assert agreements([table("linear", LINEAR), table("lowlabel", TUNED, **change)]) == []


def test_one_protocol_twice_two_experiments_and_all_tied_say_nothing() -> None:
    assert agreements([table("linear", LINEAR), table("linear", TUNED, settings="b")]) == []
    two = {"a": 1.0, "b": 2.0}
    assert agreements([table("linear", two), table("lowlabel", two)]) == []
    assert agreements([table("linear", LINEAR), table("lowlabel", dict.fromkeys(LINEAR, 50.0))]) == []


def test_a_hundred_conditions_are_left_out() -> None:
    parts = {f"encoder, severity {i}": table("x", LINEAR).layers["encoder"] for i in range(PARTS + 1)}
    assert agreements([table("linear", LINEAR), Group("corruptions", "b", "digits", "top1", parts)]) == []
