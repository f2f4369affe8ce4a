"""Errors under many conditions as one number, relative to the supervised floor.

The mean corruption error (metrics/corruption_error.py) with our supervised floor where the paper has AlexNet; below 100
an experiment is more robust than the floor. A condition is a part of a table of errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from miyagi.metrics.corruption_error import mean_corruption_error
from miyagi.report.tables import Group, finals


@dataclass(frozen=True)
class Relative:
    """One experiment in one table of errors: the mean ratio in percent over so many conditions."""

    experiment: str
    protocol: str
    dataset: str
    metric: str
    floor: str
    conditions: int
    value: float


def relative_errors(tables: Sequence[Group]) -> list[Relative]:
    """Every experiment with an error under each of several conditions, where a supervised floor has them as well."""
    found = []
    for table in tables:
        by_experiment: dict[str, dict[str, float]] = {}
        floors = set()
        for name, lines in table.layers.items():
            for line in finals(lines):
                if line.test and not line.higher_is_better:
                    by_experiment.setdefault(line.experiment, {})[name] = line.test[0]
                    floors |= {line.experiment} if line.method == "supervised" else set()
        for floor in sorted(floors)[:1]:
            base = by_experiment[floor]
            for experiment, errors in by_experiment.items():
                if set(errors) == set(base) and len(base) > 1 and all(base.values()):
                    mine, its = ({name: 100 - value for name, value in each.items()} for each in (errors, base))
                    place = table.protocol, table.dataset, table.metric
                    found.append(Relative(experiment, *place, floor, len(base), mean_corruption_error(mine, its)))
    return found
