"""The mean corruption error by hand."""

from typing import Any

from miyagi.report.robustness import Relative, relative_errors
from miyagi.report.tables import Group, Line


def line(name: str, value: float, **changes: Any) -> Line:
    method = name if name in ("random", "supervised") else "simclr"
    return Line("seed", name, method, (0,), (value, value, value), **{"higher_is_better": False, **changes})


def table(errors: dict[str, list[float]], **changes: Any) -> Group:
    parts = {
        f"encoder, corruption {i}": [
            line(name, values[i], **changes) for name, values in errors.items() if i < len(values)
        ]
        for i in range(2)
    }
    return Group("corruptions", "a", "digits", "error", parts)


def test_by_hand() -> None:
    found = relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0, 60.0]})])
    assert found == [
        Relative("supervised", "corruptions", "digits", "error", "supervised", 2, 100.0),
        Relative("a", "corruptions", "digits", "error", "supervised", 2, 100.0),  # (0.5 + 1.5) / 2
    ]
    (_, a) = relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0, 30.0]})])
    assert a.value == 62.5


def test_accuracies_floors_that_lack_and_conditions_that_lack() -> None:
    assert relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0, 60.0]}, higher_is_better=True)]) == []
    assert relative_errors([table({"random": [20.0, 40.0], "a": [10.0, 60.0]})]) == []
    assert [r.experiment for r in relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0]})])] == ["supervised"]
    assert relative_errors([table({"supervised": [0.0, 40.0], "a": [10.0, 20.0]})]) == []
