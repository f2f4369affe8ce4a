"""The numbers of the tables, by hand."""

from typing import Any

import pytest

from miyagi.report.tables import VERSUS, Line, Row, finals, groups, to_csv


def row(experiment: str, right: int, split: str = "test", **changes: Any) -> Row:
    method = experiment if experiment in ("random", "supervised") else "simclr"
    return {
        "experiment": experiment, "method": method, "protocol": "linear", "settings": "a" * 16, "dataset": "digits",
        "split": split, "layer": "encoder", "metric": "top1", "condition": {}, "draw": None, "value": right / 2, "low": right / 2 - 3,
        "high": right / 2 + 3, "interval": "bootstrap", "n": 200, "seed": 0, "selection": "c on val",
        "chosen": {"c": 1.0}, "data": "d", "code": "e", "higher_is_better": True, **changes,
    }  # fmt: skip


def test_csv_is_sorted_and_keeps_what_protocols_add() -> None:
    versus = dict(zip(VERSUS, ("random", 5.0, 2.5, 8.0), strict=True))
    nothing = dict.fromkeys(VERSUS)
    rows = [row("random", 120, **nothing), row("a", 130, pooling="gap", chosen=None, condition={"shot": 1}, **versus)]
    text = to_csv(rows)
    assert text == to_csv(rows[::-1])
    header, a, random = text.splitlines()
    assert header.startswith(
        "experiment,method,protocol,settings,dataset,split,layer,metric,seed,condition,draw,value,"
    )
    assert header.endswith(",higher_is_better,pooling,floor,vs_random,vs_random_low,vs_random_high")
    assert a.startswith(
        'a,simclr,linear,aaaaaaaaaaaaaaaa,digits,test,encoder,top1,0,"{""shot"": 1}",,65.0,62.0,68.0,bootstrap,200,'
    )
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


def test_conditions_are_parts_of_a_table() -> None:
    few, many = {"fraction": 0.01, "labels": 10}, {"fraction": 0.1, "labels": 100}
    (table,) = tables(
        *(row(name, right, condition=condition, layer=layer) for layer in ("head", "encoder")
          for condition, right in ((few, 90), (many, 120)) for name in ("random", "a")),
        row("a", 150),
    )  # fmt: skip
    assert list(table.layers) == [
        "encoder, fraction 0.01, labels 10", "encoder, fraction 0.1, labels 100", "encoder",
        "head, fraction 0.01, labels 10", "head, fraction 0.1, labels 100",
    ]  # fmt: skip
    lines = table.layers["encoder, fraction 0.1, labels 100"]
    assert [(line.experiment, line.test and line.test[0]) for line in lines] == [
        ("random", 60.0), ("supervised", None), ("a", 60.0),
    ]  # fmt: skip


def test_draws_of_one_seed_are_averaged_like_seeds() -> None:
    (table,) = tables(*(row("a", 2 * value, draw=draw) for draw, value in ((2, 66), (0, 62), (1, 64))))
    lines = [line for line in table.layers["encoder"] if line.experiment == "a"]
    assert [line.repetition for line in lines] == ["0, draw 0", "0, draw 1", "0, draw 2", "mean of 3 draws"]
    assert lines[-1].test == pytest.approx((64.0, 59.031725, 68.968275), abs=1e-5)
    (table,) = tables(row("a", 130, draw=0))
    assert [line.repetition for line in table.layers["encoder"] if line.experiment == "a"] == ["0"]


def test_over_several_seeds_each_counts_once_with_the_mean_of_its_draws() -> None:
    values = {0: (60, 64), 1: (63, 65), 2: (66, 66)}  # means 62, 64, 66, as in the test of seeds above
    (table,) = tables(
        *(
            row("a", 2 * value, seed=seed, draw=draw)
            for seed, found in values.items()
            for draw, value in enumerate(found)
        )
    )
    mean = table.layers["encoder"][-1]
    assert mean.repetition == "mean of 3 seeds x 2 draws"
    assert mean.test == pytest.approx((64.0, 59.031725, 68.968275), abs=1e-5)


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
