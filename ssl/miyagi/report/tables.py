"""From the protocols' rows to what is written and shown: one line an experiment, in groups that may be compared.

A row is what a protocol wrote into `runs/E/S/P.json`: one number with everything that says what it is. Rows that
differ in protocol, settings hash, data set or metric never meet in one table; a layer under a condition (5-way 1-shot,
1 % of the labels) is a part of a table. Repetitions, whether seeds or draws of one seed, stand under each other.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from miyagi.files import canonical
from miyagi.metrics.bootstrap import t_interval

Row = dict[str, Any]
Predictions = Mapping[str, NDArray[Any]]
Span = tuple[float, float, float]
"""A value and its interval's ends, in percent or, for a difference, percentage points."""

FLOORS = ("random", "supervised")
HEADLINE = ("encoder", "top1")
"""The layer and the metric that headline numbers, and the choice of the best result, look at."""
STAMP = (
    *("experiment", "method", "protocol", "settings", "dataset", "split", "layer", "metric", "seed"),
    *("condition", "draw", "value", "low", "high", "interval", "n", "selection", "chosen", "data", "code"),
    "higher_is_better",
)
VERSUS = ("floor", "vs_random", "vs_random_low", "vs_random_high")


@dataclass(frozen=True)
class Line:
    """One line of a table. `test`, `val` and `versus` are None where nothing was measured."""

    kind: str  # "seed", "mean" over seeds or draws, or "missing": a floor without a number in this group
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
    draws: tuple[int, ...] = ()  # empty where there are not several
    rows: tuple[Row, ...] = field(default=(), compare=False, repr=False)  # what it says, as the protocol wrote it

    @property
    def is_floor(self) -> bool:
        return self.method in FLOORS

    @property
    def repetition(self) -> str:
        """Which one this is, or how many a mean is over."""
        if self.kind != "mean":
            return ", draw ".join(str(number) for number in (*self.seeds, *self.draws))
        parts = [
            f"{len(found)} {name}" for found, name in ((self.seeds, "seeds"), (self.draws, "draws")) if len(found) > 1
        ]
        return f"mean of {' x '.join(parts)}"

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
    """Lines that may be compared: one protocol with one hash of its settings, one data set, one metric.

    Attributes:
        layers: the parts, by `part`: a layer, and the condition where there is one.
    """

    protocol: str
    settings: str
    dataset: str
    metric: str
    layers: Mapping[str, Sequence[Line]]


def part(row: Row) -> str:
    """The part of its table that a row belongs to: "encoder", or "encoder, fraction 0.01, labels 100"."""
    return ", ".join([row["layer"], *(f"{name} {value}" for name, value in sorted(row["condition"].items()))])


def to_csv(rows: Iterable[Row]) -> str:
    """Sorted rows as CSV: the stamp, what protocols add to it, then VERSUS. Equal rows give equal bytes."""
    ordered = sorted(rows, key=order)
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
        tables.setdefault(key, {}).setdefault(part(row), []).append(row)

    def by_layer(found: tuple[str, list[Row]]) -> tuple[bool, str]:
        layer = found[1][0]["layer"]  # conditions stay in the protocol's order
        return layer != HEADLINE[0], layer

    return [
        Group(protocol, settings, dataset, metric, {
            name: [line for experiment in order for line in _lines(experiment, methods[experiment], own)]
            for name, own in sorted(tables[key].items(), key=by_layer)
        })
        for key in sorted(tables) for dataset, protocol, metric, settings in [key]
    ]  # fmt: skip


def finals(lines: Iterable[Line]) -> list[Line]:
    """One line an experiment: the mean over its repetitions where there are several, else its only one's."""
    return [line for line in {line.experiment: line for line in lines}.values() if line.kind != "missing"]


def _lines(experiment: str, method: str, rows: Sequence[Row]) -> list[Line]:
    """The lines of one experiment in one part of one group."""
    splits: dict[tuple[int, int], dict[str, Row]] = {}
    for row in rows:
        if row["experiment"] == experiment and row["split"] in ("val", "test"):
            splits.setdefault((row["seed"], row["draw"] or 0), {})[row["split"]] = row
    if not splits:
        return [Line("missing", experiment, method)] if method in FLOORS else []
    several = len({draw for _, draw in splits}) > 1
    lines = [_line(splits[key], several) for key in sorted(splits)]
    return [*lines, _mean(lines)] if len(lines) > 1 else lines


def _line(splits: Mapping[str, Row], several_draws: bool) -> Line:
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
        draws=(row["draw"],) if several_draws else (),
        test=(test["value"], test["low"], test["high"]) if test else None,
        val=val["value"] if val else None,
        versus=versus,
        floor=(test or {}).get("floor") or "",
        n=test["n"] if test else None,
        selection=row["selection"] or "",
        chosen=", ".join(f"{key} = {value}" for key, value in sorted((row["chosen"] or {}).items())),
        higher_is_better=row["higher_is_better"],
        rows=(row,),
    )


def _mean(lines: Sequence[Line]) -> Line:
    """The mean over repetitions with its t interval; a number that one of them lacks is left out, not averaged.

    Draws share their seed's encoder, so over several seeds each seed counts once, with the mean of its draws.
    """
    first = lines[0]
    tests = [(line.seeds[0], line.test[0]) for line in lines if line.test]
    vals = [line.val for line in lines if line.val is not None]
    differences = [(line.seeds[0], line.versus[0]) for line in lines if line.versus]
    whole = len(lines)
    return Line(
        kind="mean",
        experiment=first.experiment,
        method=first.method,
        seeds=tuple(dict.fromkeys(seed for line in lines for seed in line.seeds)),
        draws=tuple(dict.fromkeys(draw for line in lines for draw in line.draws)),
        test=t_interval(independent(tests)) if len(tests) == whole else None,
        val=sum(vals) / whole if len(vals) == whole else None,
        versus=t_interval(independent(differences)) if len(differences) == whole else None,
        floor=first.floor,
        n=first.n if len({line.n for line in lines}) == 1 else None,
        selection=first.selection,
        higher_is_better=first.higher_is_better,
        rows=tuple(row for line in lines for row in line.rows),
    )


def independent(values: Iterable[tuple[int, float]]) -> list[float]:
    """(seed, value) of repetitions -> what a t interval may be taken over: a mean a seed, or the only seed's draws."""
    by_seed: dict[int, list[float]] = {}
    for seed, value in values:
        by_seed.setdefault(seed, []).append(value)
    if len(by_seed) == 1:
        return next(iter(by_seed.values()))
    return [sum(found) / len(found) for found in by_seed.values()]


def order(row: Row) -> tuple[Any, ...]:
    """What rows are sorted by, wherever their order counts."""
    return (*(row[key] for key in STAMP[:9]), canonical(row["condition"]), row["draw"] or 0)


def _cell(value: Any) -> Any:
    """A value as CSV takes it: nothing for None, JSON for what has parts, floats in full."""
    if value is None:
        return ""
    return json.dumps(value, sort_keys=True) if isinstance(value, bool | dict | list) else value
