"""The mean corruption error by hand."""

from typing import Any

import numpy as np
import pytest

from miyagi.errors import UserError
from miyagi.report.robustness import Relative, relative_errors
from miyagi.report.tables import Group, Line
from tests.report.test_tables import row


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


def nothing(name: str, seed: int, protocol: str) -> dict[str, np.ndarray]:
    return {}


def test_by_hand() -> None:
    found = relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0, 60.0]})], nothing)
    assert found == [
        Relative("supervised", "corruptions", "digits", "error", "supervised", 2, 100.0),
        Relative("a", "corruptions", "digits", "error", "supervised", 2, 100.0),  # (0.5 + 1.5) / 2
    ]
    (_, a) = relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0, 30.0]})], nothing)
    assert a.value == 62.5


def test_accuracies_floors_that_lack_and_conditions_that_lack() -> None:
    assert (
        relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0, 60.0]}, higher_is_better=True)], nothing) == []
    )
    assert relative_errors([table({"random": [20.0, 40.0], "a": [10.0, 60.0]})], nothing) == []
    assert [r.experiment for r in relative_errors([table({"supervised": [20.0, 40.0], "a": [10.0]})], nothing)] == [
        "supervised"
    ]
    assert relative_errors([table({"supervised": [0.0, 40.0], "a": [10.0, 20.0]})], nothing) == []


def measured(errors: dict[str, np.ndarray], seeds: int = 1, **changes: Any) -> tuple[Group, Any]:
    """A table of images' errors (conditions x images, of each experiment), and what the protocol kept."""
    parts: dict[str, list[Line]] = {}
    kept: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for name, conditions in errors.items():
        for i, values in enumerate(conditions):
            rows = []
            for seed in range(seeds):
                own = {"metric": "error", "condition": {"corruption": i}, "seed": seed, "n": len(values)}
                value = float(values.mean())
                rows.append(
                    row(name, 0, value=value, higher_is_better=False, **own, **(changes if name == "a" else {}))
                )
                kept.setdefault((name, seed), {})[f"digits.test.encoder.corruption_{i}.error.scores"] = values
            method = rows[0]["method"]
            part = Line("seed", name, method, (0,), (value,) * 3, higher_is_better=False, rows=tuple(rows))
            parts.setdefault(f"encoder, corruption {i}", []).append(part)
    return Group("corruptions", "a", "digits", "error", parts), lambda name, seed, protocol: kept[name, seed]


@pytest.mark.parametrize("seeds", [1, 2])
def test_images_are_redrawn_for_the_experiment_and_the_floor_at_once(seeds: int) -> None:
    rng = np.random.default_rng(0)
    floor = 100.0 * (rng.random((3, 500)) < 0.4)
    errors = {"supervised": floor, "a": floor / 2, "b": 100.0 * (rng.random((3, 500)) < 0.2)}
    table, kept = measured(errors, seeds)
    found = {each.experiment: each for each in relative_errors([table], kept)}
    assert found["supervised"].interval == pytest.approx((100, 100))
    assert found["a"].interval == pytest.approx((50, 50))  # of half the floor's errors, whatever images there are
    low, high = found["b"].interval or (0.0, 0.0)
    draws = [rng.integers(0, 500, 500) for _ in range(4000)]
    by_hand = [np.mean(100 * errors["b"][:, i].mean(1) / floor[:, i].mean(1)) for i in draws]
    assert (low, high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=1)
    assert low < found["b"].value < high


def test_other_images_have_no_share() -> None:
    errors = {"supervised": np.full((2, 20), 50.0), "a": np.full((2, 20), 25.0)}
    table, kept = measured(errors, data="other")
    with pytest.raises(UserError, match="a and supervised saw different images"):
        relative_errors([table], kept)


def test_no_interval_without_the_images_own_errors() -> None:
    table, _ = measured({"supervised": np.full((2, 20), 50.0), "a": np.full((2, 20), 25.0)})
    assert [(each.value, each.interval) for each in relative_errors([table], nothing)] == [(100, None), (50, None)]
