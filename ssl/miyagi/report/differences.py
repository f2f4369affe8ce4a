"""Differences between experiments, paired: both are seen on the same images, so how hard an image is cancels out.

To the random floor, in each row, and between any two experiments, tested and corrected for the number of tests.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miyagi.errors import UserError
from miyagi.files import canonical
from miyagi.metrics.bootstrap import Redrawn, difference, paired, t_interval
from miyagi.metrics.significance import holm, mcnemar, paired_t
from miyagi.protocols.rows import place
from miyagi.registry import PROTOCOLS
from miyagi.report.tables import VERSUS, Predictions, Row, Span, independent, order, part

Kept = Callable[[str, int, str], Predictions]
"""An experiment, a seed and a protocol -> the tensors that the protocol kept, see protocols/rows.py."""
PARTS = 12
"""Tables with more parts (a corruption at a severity each) get no tests: hundreds of p-values tell nobody anything."""


@dataclass(frozen=True)
class Pair:
    """Two experiments in one part of a table.

    Attributes:
        difference: of a to b in the metric's unit (percentage points, degrees), with its 95 % interval.
        p: of `test`, two-sided; adjusted: by Holm's correction over the part's pairs.
        test: "McNemar" where images are right or wrong, "t over units" (episodes) for other scores, "bootstrap" over
            images for what is no mean of scores (AUROC, mAP), "t over seeds" or "t over draws" where there are several.
    """

    part: str
    a: str
    b: str
    difference: Span
    p: float
    adjusted: float
    test: str


def against_floor(
    rows: Sequence[Row],
    predictions: Kept,
    encoders: Mapping[str, object],
) -> list[Row]:
    """The rows with the columns of VERSUS: the paired difference to the random floor, over the same images.

    An experiment is held against the floor that has its own encoder; where no floor has, against the first floor by
    name. The floor itself, and a row of which nothing was kept that can be paired, gets None in these columns.

    Args:
        rows: rows of all experiments.
        predictions: the tensors "<dataset>.<split>.<layer>" and "<dataset>.<split>.labels" of an experiment, a seed
            and a protocol.
        encoders: an experiment's name -> its encoder's settings.

    Raises:
        UserError: a row contradicts its predictions, or an experiment and its floor saw different images.
    """
    floors: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=order):
        if row["method"] == "random":
            floors.setdefault(same(row, "seed", "draw"), []).append(row)
    result = []
    for row in rows:
        versus: dict[str, Any] = dict.fromkeys(VERSUS)
        found = floors.get(same(row, "seed", "draw"), [])
        if found and row["method"] != "random":
            alike = [f for f in found if encoders.get(f["experiment"]) == encoders.get(row["experiment"])]
            floor = (alike or found)[0]
            mine, its = (predictions(r["experiment"], r["seed"], r["protocol"]) for r in (row, floor))
            if against := compared(row, floor, mine, its):
                versus = dict(zip(VERSUS, (floor["experiment"], *against.span), strict=True))
        result.append({**row, **versus})
    return result


@dataclass(frozen=True)
class Compared:
    """The difference of two rows with its 95 % interval, its p-value and the test's name; see `Pair`."""

    span: Span
    p: float
    test: str


def compared(a: Row, b: Row, mine: Predictions, its: Predictions) -> Compared | None:
    """Two rows, paired over the images (or episodes) of both; None where nothing was kept by which they could be.

    Raises:
        UserError: a row contradicts its predictions, or the two saw different images.
    """
    first, second = (kept.get(f"{place(row)}.{row['metric']}.redrawn") for row, kept in ((a, mine), (b, its)))
    if first is not None and second is not None:
        return _redrawn(a, b, first, second)
    left, right = scores(a, mine), scores(b, its)
    if left is None or right is None:
        return None
    check_units(a, b, mine, its)
    binary = np.isin([left, right], (0, 100)).all()
    if binary:
        p, test = mcnemar(left, right), "McNemar"
    else:  # one unit alone says nothing of a spread
        p, test = paired_t(left - right) if len(left) > 1 else 1.0, "t over units"
    return Compared(paired(left, right), p, test)


def _redrawn(a: Row, b: Row, left: Redrawn, right: Redrawn) -> Compared | None:
    """See `compared`; None where the same images were not redrawn, or no set of them gives both a number."""
    alike = (a["n"], a["data"], len(left)) == (b["n"], b["data"], len(right))
    if not alike or not np.isfinite(left - right).any():
        return None
    low, high, p = difference(left, right)
    return Compared((a["value"] - b["value"], low, high), p, "bootstrap")


def scores(row: Row, predictions: Predictions) -> NDArray[np.float64] | None:
    """One number a unit whose mean is the row's value, e.g. 0 or 100 for each image; None where none were kept.

    Raises:
        UserError: a row contradicts its predictions.
    """
    name = place(row)
    kept = predictions.get(f"{name}.{row['metric']}.scores")
    predicted, labels = predictions.get(name), predictions.get(f"{row['dataset']}.{row['split']}.labels")
    if kept is not None:
        # A metric that is no mean (AUROC) has scores of another kind; `redrawn` pairs it.
        return kept if len(kept) == row["n"] and abs(kept.mean() - row["value"]) < 1e-6 else None
    if row["metric"] != "top1" or predicted is None or labels is None:
        return None
    found: NDArray[np.float64] = np.where(predicted == labels, 100.0, 0.0)
    if len(found) != row["n"] or abs(found.mean() - row["value"]) > 0.06:  # a row may be rounded to one decimal
        stage = f"{PROTOCOLS.entries[row['protocol']].family}@{row['experiment']}-{row['seed']}-{row['protocol']}"
        raise UserError(f"runs/{row['experiment']}/{row['seed']}/{row['protocol']}.json and its predictions disagree "
                        f"on {name}; rerun: dvc repro --force {stage}")  # fmt: skip
    return found


def same(row: Row, *also: str) -> tuple[Any, ...]:
    """What two rows must share to be compared, and the columns `also`."""
    columns = ("protocol", "settings", "dataset", "split", "layer", "metric", *also)
    return (*(row[key] for key in columns), canonical(row["condition"]))


def check_units(a: Row, b: Row, mine: Predictions, its: Predictions) -> None:
    """Raise a UserError unless two rows' scores belong to the same images in the same order."""
    labels = f"{a['dataset']}.{a['split']}.labels"
    alike = a["n"] == b["n"] and a["data"] == b["data"]
    if not alike or not np.array_equal(mine.get(labels, np.empty(0)), its.get(labels, np.empty(0))):
        raise UserError(f"{a['experiment']} and {b['experiment']} saw different images of {labels}; rerun: dvc repro")


def pairs(
    rows: Sequence[Row], predictions: Kept, experiments: Sequence[str]
) -> dict[tuple[str, str, str, str], list[Pair]]:
    """Every two experiments in every part of every table, on the test split.

    With one repetition the test is over images; with several seeds (or draws of one seed) it is a paired t-test over
    them, a pair being the same seed and draw. Two without a common repetition, or without kept scores, are left out.

    Args:
        rows: rows of all experiments.
        predictions: see `Kept`.
        experiments: the order in which they stand, a before b.

    Returns:
        (protocol, settings, data set, metric) -> its pairs, part by part.

    Raises:
        UserError: a row contradicts its predictions, or two experiments saw different images.
    """
    tables: dict[tuple[str, str, str, str], dict[str, dict[str, dict[tuple[int, int], Row]]]] = {}
    for row in rows:
        if row["split"] == "test":
            key = (row["protocol"], row["settings"], row["dataset"], row["metric"])
            found = tables.setdefault(key, {}).setdefault(part(row), {})
            found.setdefault(row["experiment"], {})[row["seed"], row["draw"] or 0] = row
    result = {}
    for key, parts in tables.items():
        tested = []
        for name, by_experiment in parts.items() if len(parts) <= PARTS else ():
            measured = [experiment for experiment in experiments if experiment in by_experiment]
            every = [
                pair
                for a, b in itertools.combinations(measured, 2)
                if (pair := _pair(name, by_experiment[a], by_experiment[b], predictions))
            ]
            for pair, adjusted in zip(every, holm([pair.p for pair in every]), strict=True):
                tested.append(replace(pair, adjusted=adjusted))
        if tested:
            result[key] = tested
    return result


def _pair(
    name: str, a: Mapping[tuple[int, int], Row], b: Mapping[tuple[int, int], Row], predictions: Kept
) -> Pair | None:
    common = sorted(set(a) & set(b))
    if not common:
        return None
    first, second = a[common[0]], b[common[0]]
    if len(common) > 1:
        values = independent((seed, a[seed, draw]["value"] - b[seed, draw]["value"]) for seed, draw in common)
        over = "seeds" if len({seed for seed, _ in common}) > 1 else "draws"
        p, span, test = paired_t(values), t_interval(values), f"t over {over}"
    else:
        mine, its = (predictions(row["experiment"], row["seed"], row["protocol"]) for row in (first, second))
        found = compared(first, second, mine, its)
        if found is None:
            return None
        span, p, test = found.span, found.p, found.test
    return Pair(name, first["experiment"], second["experiment"], span, p, p, test)
