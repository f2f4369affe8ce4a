"""Means over groups of data sets, as VTAB reports them: natural, specialised, structured.

Every data set of a group counts the same, whatever its number of images. A data set's group is the `group` of its entry
in params.yaml. VTAB: Zhai et al., arXiv 1910.04867.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from miyagi.metrics.bootstrap import t_interval
from miyagi.report.tables import Group, Line, Span, independent

EVERY = "all"
"""The data sets of every group together."""
Repetitions = dict[tuple[int, tuple[int, ...]], Line]
"""(seed, draw) -> its line."""


@dataclass(frozen=True)
class Average:
    """One experiment's mean over a group's data sets, in one part of their tables.

    Attributes:
        value: in the tables' unit, with its 95 % interval.
        versus: the same of the differences to the random floor; None where a data set has none.
    """

    group: str
    datasets: tuple[str, ...]
    experiment: str
    protocol: str
    settings: str
    metric: str
    part: str
    value: Span
    versus: Span | None


def averages(tables: Sequence[Group], groups: Mapping[str, str | None]) -> list[Average]:
    """The mean of every experiment that was tested on each data set of a group, where there are two or more.

    With several seeds the interval is Student's t over the seeds' means. With one it speaks of other images, which are
    independent from data set to data set: h = sqrt(h_1^2 + ... + h_k^2) / k for the distances h_i to an interval's end.

    Args:
        tables: of the report.
        groups: data set -> its group; None: it belongs to none.
    """
    wanted: dict[str, list[str]] = {}
    for dataset in sorted(groups):
        if (group := groups[dataset]) is not None:
            wanted.setdefault(group, []).append(dataset)
    if len(wanted) > 1:
        wanted[EVERY] = sorted(name for names in wanted.values() for name in names)
    found = []
    for (protocol, settings, metric, part), experiments in _places(tables).items():
        for group, names in wanted.items():
            for experiment, lines in experiments.items():
                if len(names) > 1 and set(names) <= set(lines):
                    own = [lines[name] for name in names]
                    value, versus = (_mean([_spans(one, of) for one in own]) for of in ("test", "versus"))
                    if value:
                        place = experiment, protocol, settings, metric, part
                        found.append(Average(group, tuple(names), *place, value, versus))
    return found


def _places(tables: Sequence[Group]) -> dict[tuple[str, str, str, str], dict[str, dict[str, Repetitions]]]:
    """(protocol, settings, metric, part) -> experiment -> data set -> its lines, without those that are means."""
    found: dict[tuple[str, str, str, str], dict[str, dict[str, Repetitions]]] = {}
    for table in tables:
        for part, lines in table.layers.items():
            place = found.setdefault((table.protocol, table.settings, table.metric, part), {})
            for line in lines:
                if line.kind == "seed":
                    own = place.setdefault(line.experiment, {}).setdefault(table.dataset, {})
                    own[line.seeds[0], line.draws] = line
    return found


def _spans(lines: Repetitions, of: str) -> dict[tuple[int, tuple[int, ...]], Span]:
    return {key: span for key, line in lines.items() if (span := getattr(line, of)) is not None}


def _mean(by_dataset: Sequence[Mapping[tuple[int, tuple[int, ...]], Span]]) -> Span | None:
    """The mean over data sets of what each repetition has on all of them; None where one lacks something."""
    keys = set(by_dataset[0])
    if not keys or any(set(spans) != keys for spans in by_dataset):
        return None
    means = [(seed, sum(spans[seed, draw][0] for spans in by_dataset) / len(by_dataset)) for seed, draw in sorted(keys)]
    if len(means) > 1:
        return t_interval(independent(means))
    ((_, mean),) = means
    only = [next(iter(spans.values())) for spans in by_dataset]
    low = hypot(*(value - low for value, low, _ in only)) / len(only)
    high = hypot(*(high - value for value, _, high in only)) / len(only)
    return mean, mean - low, mean + high
