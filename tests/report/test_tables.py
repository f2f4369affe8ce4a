"""The numbers of the tables, by hand."""

from typing import Any

import numpy as np
import pytest

from miyagi.errors import UserError
from miyagi.report.tables import Line, Row, against_floor, finals, groups, to_csv

CONV = {"name": "conv4"}
DEEP = {"name": "resnet18"}
LABELS = np.arange(200, dtype=np.int64) % 10


def row(experiment: str, right: int, split: str = "test", **changes: Any) -> Row:
    method = experiment if experiment in ("random", "supervised") else "simclr"
    return {
        "experiment": experiment, "method": method, "protocol": "linear", "settings": "a" * 16, "dataset": "digits",
        "split": split, "layer": "encoder", "metric": "top1", "value": right / 2, "low": right / 2 - 3,
        "high": right / 2 + 3, "interval": "bootstrap", "n": 200, "seed": 0, "selection": "c on val",
        "chosen": {"c": 1.0}, "data": "d", "code": "e", "higher_is_better": True, **changes,
    }  # fmt: skip


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


def test_csv_is_sorted_and_keeps_what_protocols_add() -> None:
    kept = {"random": predicted(first(120)), "a": predicted(first(130))}
    rows = list(compare([row("random", 120), row("a", 130, pooling="gap", chosen=None)], kept).values())
    text = to_csv(rows)
    assert text == to_csv(rows[::-1])
    header, a, random = text.splitlines()
    assert header.startswith("experiment,method,protocol,settings,dataset,split,layer,metric,seed,value,low,high,")
    assert header.endswith(",higher_is_better,pooling,floor,vs_random,vs_random_low,vs_random_high")
    assert a.startswith("a,simclr,linear,aaaaaaaaaaaaaaaa,digits,test,encoder,top1,0,65.0,62.0,68.0,bootstrap,200,")
    assert ",c on val,,d,e,true,gap,random,5.0," in a
    assert random.endswith(",true,,,,,")


def tables(*rows: Row) -> Any:
    made = [{"floor": None, "vs_random": None, "vs_random_low": None, "vs_random_high": None, **r} for r in rows]
    methods = {"a": "simclr", "supervised": "supervised", "b": "simclr", "random": "random"}
    return groups(made, methods)


def test_lines_by_hand() -> None:
    versus = {"floor": "random", "vs_random": 4.0, "vs_random_low": 1.0, "vs_random_high": 7.0}
    (table,) = tables(row("a", 130, **versus), row("a", 140, "val"), row("random", 122))
    random, supervised, a = table.layers["encoder"]  # floors first, then the order of the experiments
    assert (random.test, random.kind, random.is_floor) == ((61.0, 58.0, 64.0), "seed", True)
    assert (supervised.kind, supervised.test, supervised.is_floor) == ("missing", None, True)
    assert (a.test, a.val, a.versus, a.n) == ((65.0, 62.0, 68.0), 70.0, (4.0, 1.0, 7.0), 200)
    assert (a.selection, a.chosen, a.seeds, a.verdict) == ("c on val", "c = 1.0", (0,), "better")


def test_mean_over_seeds_stands_under_its_seeds() -> None:
    seeds = [row("a", 2 * value, seed=seed, vs_random=value - 60.0, vs_random_low=0.0, vs_random_high=9.0)
             for seed, value in ((2, 66), (0, 62), (1, 64))]  # fmt: skip
    (table,) = tables(*seeds, *(row("b", 120, seed=seed) for seed in (0, 1)))
    lines = [line for line in table.layers["encoder"] if line.experiment == "a"]
    assert [(line.kind, line.seeds) for line in lines] == [
        ("seed", (0,)), ("seed", (1,)), ("seed", (2,)), ("mean", (0, 1, 2)),
    ]  # fmt: skip
    # mean 64, s = 2, t(0.975; 2) = 4.302653, half = 4.302653 * 2 / sqrt(3) = 4.968275
    assert lines[-1].test == pytest.approx((64.0, 59.031725, 68.968275), abs=1e-5)
    assert lines[-1].versus == pytest.approx((4.0, -0.968275, 8.968275), abs=1e-5)
    assert lines[-1].verdict == "unclear"
    assert [line.kind for line in finals(table.layers["encoder"])] == ["mean", "mean"]


def test_one_table_a_protocol_settings_data_set_and_metric() -> None:
    changes = (
        {},
        {"settings": "b" * 16},
        {"dataset": "other"},
        {"metric": "top5"},
        {"protocol": "knn"},
        {"layer": "x"},
    )
    found = tables(*(row("a", 130, **change) for change in changes))
    assert len(found) == 5
    assert [list(table.layers) for table in found] == [["encoder"], ["encoder", "x"], *[["encoder"]] * 3]


@pytest.mark.parametrize(
    ("versus", "higher", "verdict"),
    [
        ((2.0, 1.0, 3.0), True, "better"),
        ((2.0, 1.0, 3.0), False, "worse"),
        ((-2.0, -3.0, -1.0), True, "worse"),
        ((-2.0, -3.0, -1.0), False, "better"),
        ((1.0, 0.0, 2.0), True, "unclear"),
        (None, True, ""),
    ],
)
def test_verdict(versus: Any, higher: bool, verdict: str) -> None:
    assert Line("seed", "a", "simclr", versus=versus, higher_is_better=higher).verdict == verdict
