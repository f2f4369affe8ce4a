"""Errors under many conditions as one number, relative to the supervised floor.

The mean corruption error (metrics/corruption_error.py) with our supervised floor where the paper has AlexNet; below 100
an experiment is more robust than the floor. A condition is a part of a table of errors.

The interval is a bootstrap over test images, redrawn for the experiment, the floor and all conditions at once: an image
that is hard for both is drawn for both. Of several seeds an image has its mean error, so it speaks of other images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miyagi.metrics.bootstrap import weighted
from miyagi.metrics.corruption_error import mean_corruption_error
from miyagi.report.differences import Kept, check_units, scores
from miyagi.report.tables import Group, Line, finals


@dataclass(frozen=True)
class Relative:
    """One experiment in one table of errors: the mean ratio in percent over so many conditions.

    Attributes:
        interval: its 95 % interval, low before high; None where the images' own errors were not kept.
    """

    experiment: str
    protocol: str
    dataset: str
    metric: str
    floor: str
    conditions: int
    value: float
    interval: tuple[float, float] | None = None


def relative_errors(tables: Sequence[Group], predictions: Kept) -> list[Relative]:
    """Every experiment with an error under each of several conditions, where a supervised floor has them as well.

    Args:
        tables: of all protocols.
        predictions: what they kept, see `differences.Kept`.

    Raises:
        UserError: an experiment and its floor saw different images.
    """
    found = []
    for table in tables:
        by_experiment: dict[str, dict[str, Line]] = {}
        floors = set()
        for name, lines in table.layers.items():
            for line in finals(lines):
                if line.test and not line.higher_is_better:
                    by_experiment.setdefault(line.experiment, {})[name] = line
                    floors |= {line.experiment} if line.method == "supervised" else set()
        for floor in sorted(floors)[:1]:
            base = by_experiment[floor]
            for experiment, own in by_experiment.items():
                if set(own) == set(base) and len(base) > 1 and all(_error(line) for line in base.values()):
                    mine, its = ({name: 100 - _error(line) for name, line in each.items()} for each in (own, base))
                    place = table.protocol, table.dataset, table.metric
                    value = mean_corruption_error(mine, its)
                    interval = _interval([(own[name], base[name]) for name in base], predictions)
                    found.append(Relative(experiment, *place, floor, len(base), value, interval))
    return found


def _error(line: Line) -> float:
    return line.test[0] if line.test else 0.0


def _interval(conditions: Sequence[tuple[Line, Line]], predictions: Kept) -> tuple[float, float] | None:
    """Of the mean ratio over (experiment's, floor's) lines."""
    pairs = []
    for mine, its in conditions:
        ours, theirs = _errors(mine, predictions), _errors(its, predictions)
        if ours is None or theirs is None:
            return None
        check_units(mine.rows[0], its.rows[0], {}, {})
        pairs.append((ours, theirs))
    errors, floors = (np.stack(each, axis=1) for each in zip(*pairs, strict=True))

    def mean_ratio(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        theirs = counts @ floors
        ratios = np.divide(100 * (counts @ errors), theirs, out=np.full(theirs.shape, np.nan), where=theirs > 0)
        found: NDArray[np.float64] = ratios.mean(1)
        return found

    (_, low, high), _ = weighted(mean_ratio, [len(errors)])
    return low, high


def _errors(line: Line, predictions: Kept) -> NDArray[np.float64] | None:
    """Each image's error, the mean over seeds."""
    of_rows = [scores(row, predictions(row["experiment"], row["seed"], row["protocol"])) for row in line.rows]
    kept = [found for found in of_rows if found is not None]
    return np.mean(kept, axis=0) if kept and len(kept) == len(of_rows) else None
