"""From the protocols' rows to what is written and shown: differences to the floor, and groups.

A row is what a protocol wrote into `runs/E/S/P.json`: one number with everything that says what it is. Rows that
differ in protocol, settings hash, data set or metric never meet in one table; layers are parts of a table.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miyagi.errors import UserError
from miyagi.metrics.bootstrap import paired, t_interval

Row = dict[str, Any]
Predictions = Mapping[str, NDArray[np.int64]]
Span = tuple[float, float, float]
"""A value and its interval's ends, in percent or, for a difference, percentage points."""

FLOORS = ("random", "supervised")
HEADLINE = ("encoder", "top1")
"""The layer and the metric that headline numbers, and the choice of the best result, look at."""
STAMP = (
    *("experiment", "method", "protocol", "settings", "dataset", "split", "layer", "metric", "seed"),
    *("value", "low", "high", "interval", "n", "selection", "chosen", "data", "code", "higher_is_better"),
)
VERSUS = ("floor", "vs_random", "vs_random_low", "vs_random_high")


@dataclass(frozen=True)
class Line:
    """One line of a table. `test`, `val` and `versus` are None where nothing was measured."""

    kind: str  # "seed", "mean" over seeds, or "missing": a floor without a number in this group
    experiment: str
    method: str
    seeds: tuple[int, ...] = ()
    test: Span | None = None
    val: float | None = None
    versus: Span | None = None
    floor: str = ""
    n: int | None = None
    selection: str = ""
    chosen: str = ""
    higher_is_better: bool = True

    @property
    def is_floor(self) -> bool:
        return self.method in FLOORS

    @property
    def verdict(self) -> str:
        """What the paired interval says: "better", "worse", "unclear" (it includes 0), or "" without a difference."""
        if self.versus is None:
            return ""
        _, low, high = self.versus
        if low <= 0 <= high:
            return "unclear"
        return "better" if (low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Group:
    """Lines that may be compared: one protocol with one hash of its settings, one data set, one metric."""

    protocol: str
    settings: str
    dataset: str
    metric: str
    layers: Mapping[str, Sequence[Line]]


def hits(row: Row, predictions: Predictions) -> NDArray[np.float64] | None:
    """0 or 100 for each image of a top1 row, or None where the row is no top1 or its predictions were not kept."""
    place = f"{row['dataset']}.{row['split']}"
    predicted, labels = predictions.get(f"{place}.{row['layer']}"), predictions.get(f"{place}.labels")
    if row["metric"] != "top1" or predicted is None or labels is None:
        return None
    found: NDArray[np.float64] = 100.0 * (predicted == labels)
    if len(found) != row["n"] or abs(found.mean() - row["value"]) > 0.06:  # a row may be rounded to one decimal
        stage = f"probe@{row['experiment']}-{row['seed']}-{row['protocol']}"
        raise UserError(f"runs/{row['experiment']}/{row['seed']}/{row['protocol']}.json and its predictions disagree "
                        f"on {place}.{row['layer']}; rerun: dvc repro --force {stage}")  # fmt: skip
    return found


def against_floor(
    rows: Sequence[Row],
    predictions: Callable[[str, int, str], Predictions],
    encoders: Mapping[str, object],
) -> list[Row]:
    """The rows with the columns of VERSUS: the paired difference to the random floor, over the same images.

    An experiment is held against the floor that has its own encoder; where no floor has, against the first floor by
    name. The floor itself, and a row without predictions (or no top1), gets None in these columns.

    Args:
        rows: rows of all experiments.
        predictions: the tensors "<dataset>.<split>.<layer>" and "<dataset>.<split>.labels" of an experiment, a seed
            and a protocol.
        encoders: an experiment's name -> its encoder's settings.

    Raises:
        UserError: a row contradicts its predictions, or an experiment and its floor saw different images.
    """
    same = ("protocol", "settings", "dataset", "split", "layer", "metric", "seed")
    floors: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=_order):
        if row["method"] == "random":
            floors.setdefault(tuple(row[key] for key in same), []).append(row)
    result = []
    for row in rows:
        versus: dict[str, Any] = dict.fromkeys(VERSUS)
        found = floors.get(tuple(row[key] for key in same), [])
        if found and row["method"] != "random":
            alike = [f for f in found if encoders.get(f["experiment"]) == encoders.get(row["experiment"])]
            floor = (alike or found)[0]
            mine, its = (predictions(r["experiment"], r["seed"], r["protocol"]) for r in (row, floor))
            left, right = hits(row, mine), hits(floor, its)
            if left is not None and right is not None:
                labels = f"{row['dataset']}.{row['split']}.labels"
                if not np.array_equal(mine[labels], its[labels]):
                    raise UserError(f"{row['experiment']} and {floor['experiment']} saw different images of {labels}; "
                                    "rerun: dvc repro")  # fmt: skip
                versus = dict(zip(VERSUS, (floor["experiment"], *paired(left, right)), strict=True))
        result.append({**row, **versus})
    return result


def to_csv(rows: Iterable[Row]) -> str:
    """Sorted rows as CSV: the stamp, what protocols add to it, then VERSUS. Equal rows give equal bytes."""
    ordered = sorted(rows, key=_order)
    extra = sorted({key for row in ordered for key in row} - {*STAMP, *VERSUS})
    text = io.StringIO()
    writer = csv.DictWriter(text, (*STAMP, *extra, *VERSUS), lineterminator="\n", restval="")
    writer.writeheader()
    for row in ordered:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def groups(rows: Sequence[Row], methods: Mapping[str, str]) -> list[Group]:
    """The tables: every experiment in the order of `methods`, floors first, a line a seed and then their mean.

    Args:
        rows: what `against_floor` returned; the splits val and test are looked at.
        methods: experiment -> method. A floor without a number in a group still gets a line that says so.
    """
    order = sorted(methods, key=lambda name: (*FLOORS, methods[name]).index(methods[name]))
    tables: dict[tuple[str, str, str, str], dict[str, list[Row]]] = {}
    for row in rows:
        key = (row["dataset"], row["protocol"], row["metric"], row["settings"])
        tables.setdefault(key, {}).setdefault(row["layer"], []).append(row)
    return [
        Group(protocol, settings, dataset, metric, {
            layer: [line for name in order for line in _lines(name, methods[name], tables[key][layer])]
            for layer in sorted(tables[key], key=lambda layer: (layer != HEADLINE[0], layer))
        })
        for key in sorted(tables) for dataset, protocol, metric, settings in [key]
    ]  # fmt: skip


def finals(lines: Iterable[Line]) -> list[Line]:
    """One line an experiment: the mean over its seeds where there are several, else its only seed's."""
    return [line for line in {line.experiment: line for line in lines}.values() if line.kind != "missing"]


def _lines(experiment: str, method: str, rows: Sequence[Row]) -> list[Line]:
    """The lines of one experiment in one layer of one group."""
    splits: dict[int, dict[str, Row]] = {}
    for row in rows:
        if row["experiment"] == experiment and row["split"] in ("val", "test"):
            splits.setdefault(row["seed"], {})[row["split"]] = row
    if not splits:
        return [Line("missing", experiment, method)] if method in FLOORS else []
    lines = [_line(splits[seed]) for seed in sorted(splits)]
    return [*lines, _mean(lines)] if len(lines) > 1 else lines


def _line(splits: Mapping[str, Row]) -> Line:
    test, val = splits.get("test"), splits.get("val")
    row = test or val or {}
    versus = None
    if test and test["vs_random"] is not None:
        versus = (test["vs_random"], test["vs_random_low"], test["vs_random_high"])
    return Line(
        kind="seed",
        experiment=row["experiment"],
        method=row["method"],
        seeds=(row["seed"],),
        test=(test["value"], test["low"], test["high"]) if test else None,
        val=val["value"] if val else None,
        versus=versus,
        floor=(test or {}).get("floor") or "",
        n=test["n"] if test else None,
        selection=row["selection"] or "",
        chosen=", ".join(f"{key} = {value}" for key, value in sorted((row["chosen"] or {}).items())),
        higher_is_better=row["higher_is_better"],
    )


def _mean(lines: Sequence[Line]) -> Line:
    """The mean over seeds with its t interval; a part that some seed lacks is left out rather than averaged."""
    first = lines[0]
    tests = [line.test[0] for line in lines if line.test]
    vals = [line.val for line in lines if line.val is not None]
    differences = [line.versus[0] for line in lines if line.versus]
    whole = len(lines)
    return Line(
        kind="mean",
        experiment=first.experiment,
        method=first.method,
        seeds=tuple(seed for line in lines for seed in line.seeds),
        test=t_interval(tests) if len(tests) == whole else None,
        val=sum(vals) / whole if len(vals) == whole else None,
        versus=t_interval(differences) if len(differences) == whole else None,
        floor=first.floor,
        n=first.n if len({line.n for line in lines}) == 1 else None,
        selection=first.selection,
        higher_is_better=first.higher_is_better,
    )


def _order(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in STAMP[:9])


def _cell(value: Any) -> Any:
    """A value as CSV takes it: nothing for None, JSON for what has parts, floats in full."""
    if value is None:
        return ""
    return json.dumps(value, sort_keys=True) if isinstance(value, bool | dict | list) else value
