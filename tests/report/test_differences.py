"""Paired differences, by hand: to the random floor, and between any two experiments."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from miyagi.errors import UserError
from miyagi.report.differences import PARTS, against_floor, pairs
from miyagi.report.tables import Row
from tests.report.test_tables import row

CONV = {"name": "conv4"}
DEEP = {"name": "resnet18"}
LABELS = np.arange(200, dtype=np.int64) % 10


def predicted(right: np.ndarray) -> dict[str, np.ndarray]:
    """Predictions that are right where `right` says so."""
    return {"digits.test.encoder": np.where(right, LABELS, (LABELS + 1) % 10), "digits.test.labels": LABELS}


def first(count: int) -> np.ndarray:
    return np.arange(200) < count


def compare(rows: list[Row], kept: dict[str, Any], encoders: dict[str, Any] | None = None) -> dict[str, Row]:
    found = against_floor(
        rows, lambda name, seed, protocol: kept[name], encoders or {r["experiment"]: CONV for r in rows}
    )
    return {r["experiment"]: r for r in found}


def test_difference_excludes_zero_where_one_only_gains() -> None:
    found = compare([row("random", 120), row("a", 130)], {"random": predicted(first(120)), "a": predicted(first(130))})
    assert (found["a"]["floor"], found["a"]["vs_random"]) == ("random", 5.0)
    assert 0 < found["a"]["vs_random_low"] < 5 < found["a"]["vs_random_high"]
    assert found["random"]["vs_random"] is found["random"]["floor"] is None


def test_difference_includes_zero_where_gains_meet_losses() -> None:
    late = np.arange(200) >= 78  # 122 right, on other images than the floor's
    found = compare([row("random", 120), row("a", 122)], {"random": predicted(first(120)), "a": predicted(late)})
    assert found["a"]["vs_random"] == 1.0
    assert found["a"]["vs_random_low"] < 0 < found["a"]["vs_random_high"]


@pytest.mark.parametrize("change", [{"settings": "b" * 16}, {"seed": 1}, {"layer": "head"}, {"protocol": "knn"}])
def test_nothing_is_compared_across(change: dict[str, Any]) -> None:
    kept = {"random": predicted(first(120)), "a": predicted(first(130))}
    assert compare([row("random", 120, **change), row("a", 130)], kept)["a"]["vs_random"] is None


def test_floor_of_the_same_encoder_is_preferred() -> None:
    rows = [row("random", 120), row("random_deep", 100, method="random"), row("deep", 130), row("conv", 130)]
    kept = {r["experiment"]: predicted(first(int(2 * r["value"]))) for r in rows}
    found = compare(rows, kept, {"random": CONV, "conv": CONV, "random_deep": DEEP, "deep": DEEP})
    assert (found["deep"]["floor"], found["deep"]["vs_random"]) == ("random_deep", 15.0)
    assert (found["conv"]["floor"], found["conv"]["vs_random"]) == ("random", 5.0)
    assert found["random_deep"]["vs_random"] is None


def test_no_predictions_no_difference() -> None:
    kept: dict[str, Any] = {"random": predicted(first(120)), "a": {}}
    assert compare([row("random", 120), row("a", 130)], kept)["a"]["vs_random"] is None


def test_predictions_that_contradict_their_row_are_refused() -> None:
    kept = {"random": predicted(first(120)), "a": predicted(first(120))}
    with pytest.raises(UserError, match=r"runs/a/0/linear\.json and its predictions disagree.*probe@a-0-linear"):
        compare([row("random", 120), row("a", 130)], kept)


def test_other_images_are_refused() -> None:
    other = predicted(first(130))
    kept = {"random": predicted(first(120)), "a": {name: np.roll(value, 3) for name, value in other.items()}}
    with pytest.raises(UserError, match="a and random saw different images"):
        compare([row("random", 120), row("a", 130)], kept)


@pytest.mark.parametrize("change", [{"condition": {"shot": 5}}, {"draw": 1}])
def test_conditions_and_draws_are_not_compared_across(change: dict[str, Any]) -> None:
    kept = {"random": predicted(first(120)), "a": predicted(first(130))}
    assert compare([row("random", 120, **change), row("a", 130)], kept)["a"]["vs_random"] is None


def test_a_condition_is_compared_by_its_own_predictions() -> None:
    own = {"condition": {"fraction": 0.01}, "draw": 0}
    kept = {
        name: {"digits.test.encoder.fraction_0.01.draw_0": predicted(first(n))["digits.test.encoder"],
               "digits.test.labels": LABELS}
        for name, n in (("random", 120), ("a", 150))
    }  # fmt: skip
    found = compare([row("random", 120, **own), row("a", 150, **own)], kept)
    assert found["a"]["vs_random"] == 15.0


def test_scores_that_are_no_predictions() -> None:
    """Episodes are paired by their scores; a metric that is no mean of them is not."""
    rng = np.random.default_rng(0)
    episodes = {name: rng.uniform(low, 100, 200) for name, low in (("random", 10), ("a", 30))}
    kept = {name: {"digits.test.encoder.top1.scores": values} for name, values in episodes.items()}
    rows = [row(name, 0, value=float(values.mean())) for name, values in episodes.items()]
    found = compare(rows, kept)["a"]
    assert found["vs_random"] == pytest.approx(episodes["a"].mean() - episodes["random"].mean())
    assert compare([{**r, "value": 77.0} for r in rows], kept)["a"]["vs_random"] is None


def test_other_data_is_refused() -> None:
    kept = {name: {"digits.test.encoder.top1.scores": np.full(200, 50.0)} for name in ("random", "a")}
    with pytest.raises(UserError, match="a and random saw different images"):
        compare([row("random", 100), row("a", 100, data="other")], kept)


TABLE = ("linear", "a" * 16, "digits", "top1")


def every_pair(rows: list[Row], kept: dict[str, Any]) -> Any:
    return pairs(rows, lambda name, seed, protocol: kept[name], ["random", "a", "b"])


def test_every_pair_by_mcnemar_and_holm() -> None:
    right = {"random": 100, "a": 110, "b": 114}
    kept = {name: predicted(first(n)) for name, n in right.items()}
    rows = [row(name, n, split) for name, n in right.items() for split in ("val", "test")]
    found = {(pair.a, pair.b): pair for pair in every_pair(rows, kept)[TABLE]}
    p = [2 * binom.cdf(0, n, 0.5) for n in (10, 14, 4)]  # images that only the second has right: a coin n times
    assert list(found) == [("random", "a"), ("random", "b"), ("a", "b")]
    assert [pair.p for pair in found.values()] == pytest.approx(p)
    assert [pair.adjusted for pair in found.values()] == pytest.approx([2 * p[0], 3 * p[1], p[2]])
    assert {pair.test for pair in found.values()} == {"McNemar"}
    difference, low, high = found["random", "b"].difference
    assert (difference, low < -7 < high < 0) == (-7.0, True)


def test_several_seeds_are_tested_over_seeds() -> None:
    values = {"a": (66, 69, 63), "b": (60, 64, 61)}
    rows = [row(name, 2 * value, seed=seed) for name, found in values.items() for seed, value in enumerate(found)]
    rows += [row("random", 90)]  # one seed only: paired with the seed that both have
    kept = {name: predicted(first(2 * values.get(name, (45,))[0])) for name in ("random", "a", "b")}
    found = {(pair.a, pair.b): pair for pair in every_pair(rows, kept)[TABLE]}
    pair = found["a", "b"]
    assert pair.test == "t over seeds"
    assert pair.p == pytest.approx(ttest_1samp([6, 5, 2], 0).pvalue)
    assert pair.difference[0] == pytest.approx(13 / 3)
    assert found["random", "a"].test == "McNemar"


def test_draws_of_one_seed_are_tested_over_draws() -> None:
    rows = [row(name, 2 * value, draw=draw) for name, found in {"a": (66, 69), "b": (60, 64)}.items()
            for draw, value in enumerate(found)]  # fmt: skip
    (pair,) = every_pair(rows, {})[TABLE]
    assert (pair.test, pair.p) == ("t over draws", pytest.approx(ttest_1samp([6, 5], 0).pvalue))


def test_holm_counts_the_pairs_of_a_part_and_parts_do_not_meet() -> None:
    conditions = [{"shot": 1}, {"shot": 5}]
    rows, kept = [], {name: {"digits.test.labels": LABELS} for name in ("a", "b")}
    for condition in conditions:
        for name, n in (("a", 100), ("b", 110)):
            rows.append(row(name, n, condition=condition))
            kept[name][f"digits.test.encoder.shot_{condition['shot']}"] = predicted(first(n))["digits.test.encoder"]
    found = every_pair(rows, kept)[TABLE]
    assert [(pair.part, pair.p == pair.adjusted) for pair in found] == [
        ("encoder, shot 1", True),
        ("encoder, shot 5", True),
    ]


def test_a_table_of_a_hundred_parts_is_not_tested() -> None:
    rows = [row(name, 100, condition={"severity": i}) for i in range(PARTS + 1) for name in ("a", "b")]
    assert every_pair(rows, {}) == {}


def test_nothing_in_common_is_no_pair() -> None:
    assert every_pair([row("a", 100, seed=0), row("b", 100, seed=1)], {}) == {}


REDRAWN = {"random": np.float32([40, 42, 44, 41]), "a": np.float32([45, 44, 43, 46]), "b": np.float32([45, 44, 43, 46])}


def redrawn(**changes: Any) -> tuple[list[Row], dict[str, Any]]:
    """Rows of a metric that is no mean, with the numbers of the same four redrawn sets of images."""
    rows = [
        row(name, 0, metric="map", value=value, **changes) for name, value in (("random", 42), ("a", 45), ("b", 45))
    ]
    return rows, {name: {"digits.test.encoder.map.redrawn": numbers} for name, numbers in REDRAWN.items()}


def test_what_is_no_mean_is_paired_by_its_redrawn_numbers() -> None:
    rows, kept = redrawn()
    found = compare(rows, kept)["a"]
    low, high = np.quantile([5, 2, -1, 5], [0.025, 0.975])
    assert (found["floor"], found["vs_random"]) == ("random", 3)
    assert (found["vs_random_low"], found["vs_random_high"]) == pytest.approx((low, high))
    tested = {(pair.a, pair.b): pair for pair in every_pair(rows, kept)[("linear", "a" * 16, "digits", "map")]}
    assert {pair.test for pair in tested.values()} == {"bootstrap"}
    assert tested["random", "a"].difference == pytest.approx((-3, -high, -low))
    assert tested["random", "a"].p == pytest.approx(2 * (1 + 1) / (4 + 1))
    assert (tested["a", "b"].difference, tested["a", "b"].p) == ((0, 0, 0), 1)


@pytest.mark.parametrize("change", [{"n": 199}, {"data": "other"}])
def test_other_images_are_no_pair(change: dict[str, Any]) -> None:
    rows, kept = redrawn()
    rows[1] |= change
    assert compare(rows, kept)["a"]["vs_random"] is None
    assert compare(rows, kept)["b"]["vs_random"] == 3
    tested = every_pair(rows, kept)[("linear", "a" * 16, "digits", "map")]
    assert [(pair.a, pair.b) for pair in tested] == [("random", "b")]


def test_nothing_redrawn_with_both_numbers_is_no_pair() -> None:
    rows, kept = redrawn()
    kept["random"] = {"digits.test.encoder.map.redrawn": np.full(4, np.nan, np.float32)}
    assert compare(rows, kept)["a"]["vs_random"] is None


def test_redrawn_numbers_change_nothing_for_accuracies() -> None:
    rows, kept = [row("random", 120), row("a", 130)], {"random": predicted(first(120)), "a": predicted(first(130))}
    before = compare(rows, kept)
    others = {"digits.test.encoder.map.redrawn": REDRAWN["a"]}
    assert compare(rows, {name: found | others for name, found in kept.items()}) == before
