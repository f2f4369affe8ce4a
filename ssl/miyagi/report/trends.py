"""Small multiples: how a number goes with the layer, the number of labels or a setting; a panel an experiment.

Each panel draws its own experiment in front of all others, on the same axes: only so can small panels be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Any

from markupsafe import Markup, escape

from miyagi.report.tables import HEADLINE, Group, Line, Span, finals

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 270, 170, 38, 46, 10
LEAST = 3
"""Layers below which there is no profile."""


@dataclass(frozen=True)
class Trend:
    """One table as small multiples.

    Attributes:
        title: the table, and what goes to the right.
        ticks: names of the places on that axis.
        places: where they are, in [0, 1].
        series: experiment -> its values, and None where there is none.
        spans: experiment -> its values with the ends of their intervals, where intervals are drawn.
    """

    title: str
    ticks: Sequence[str]
    places: Sequence[float]
    series: Mapping[str, Sequence[float | None]]
    spans: Mapping[str, Sequence[Span | None]] = field(default_factory=dict)

    def svg(self, experiment: str) -> Markup:
        """The panel of one experiment; without words of its own: `words` says the same."""
        known = [value for values in self.series.values() for value in values if value is not None]
        known += [end for spans in self.spans.values() for span in spans if span for end in span]
        low, high = min(known), max(known)
        room = max(1.0, 0.06 * (high - low))
        low, high = low - room, high + room

        def at(i: int, value: float) -> str:
            x = LEFT + self.places[i] * (WIDTH - LEFT - 14)
            return f"{x:.1f},{TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

        def path(values: Sequence[float | None], kind: str) -> str:
            points = [at(i, value) for i, value in enumerate(values) if value is not None]
            dots = "".join(
                '<circle cx="{}" cy="{}" r="3"/>'.format(*point.split(",")) for point in points if kind == "own"
            )
            return f'<g class="{kind}"><polyline points="{" ".join(points)}"/>{dots}</g>'

        others = "".join(path(values, "other") for name, values in self.series.items() if name != experiment)
        whiskers = "".join(
            f'<polyline class="interval" points="{at(i, span[1])} {at(i, span[2])}"/>'
            for i, span in enumerate(self.spans.get(experiment, ()))
            if span
        )
        marks = [(high - low) * share + low for share in (0.1, 0.5, 0.9)]
        rules = "".join(
            f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>'
            f'<text x="{LEFT - 4}" y="{y}" class="y">{value:.0f}</text>'
            for value in marks for y in [at(0, value).split(",")[1]]
        )  # fmt: skip
        below = "".join(
            f'<text class="x" transform="translate({at(i, low).split(",")[0]} {HEIGHT - BOTTOM + 12}) rotate(-30)">'
            f"{escape(tick)}</text>"
            for i, tick in enumerate(self.ticks)
        )
        return Markup(  # names are escaped above
            f'<svg class="trend" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true"><g class="rule">{rules}</g>{below}'
            f"{others}{whiskers}{path(self.series[experiment], 'own')}</svg>"
        )

    def words(self, experiment: str) -> str:
        """A panel for whoever does not see it."""
        spans = self.spans.get(experiment, [None] * len(self.ticks))
        return ", ".join(
            f"{tick} {value:.2f} %" + (f" [{span[1]:.2f}, {span[2]:.2f}]" if span else "")
            for tick, value, span in zip(self.ticks, self.series[experiment], spans, strict=True)
            if value is not None
        )


def places(values: Sequence[float], log: bool = False) -> list[float]:
    """Where ascending numbers stand between 0 and 1, on a linear or a logarithmic axis; one alone is in the middle."""
    at = [log10(value) if log else value for value in values]
    return [(x - at[0]) / (at[-1] - at[0]) for x in at] if len(at) > 1 else [0.5]


def trends(tables: Sequence[Group]) -> list[Trend]:
    """Every table with several layers, and every one with several numbers of labels."""
    return [trend for table in tables for trend in (_layers(table), *_labels(table)) if trend]


def _layers(table: Group) -> Trend | None:
    plain = {name: lines for name, lines in table.layers.items() if "," not in name and not _was_chosen(lines)}
    if len(plain) < LEAST:
        return None
    names = sorted(plain, key=lambda name: (name == "head", name == "encoder", name != "stem", name))
    return _trend(table, "layer", names, places(range(len(names))), [plain[name] for name in names])


def _was_chosen(lines: Sequence[Line]) -> bool:
    """Whether a part is one of the other layers over again, the one that validation chose."""
    return any("layer" in (row["chosen"] or {}) for line in lines for row in line.rows)


def _labels(table: Group) -> list[Trend]:
    """A trend for each rest of the condition, layers apart."""
    found: dict[tuple[str, ...], dict[int, Sequence[Line]]] = {}
    for lines in table.layers.values():
        row: dict[str, Any] = next((line.rows[0] for line in lines if line.rows), {})
        condition = {key: value for key, value in row.get("condition", {}).items() if key != "fraction"}
        labels = condition.pop("labels", None)
        if isinstance(labels, int):
            rest = (f"{key} {value}" for key, value in sorted(condition.items()))
            layer = () if row["layer"] == HEADLINE[0] else (row["layer"],)
            found.setdefault((*layer, *rest), {})[labels] = lines
    made = []
    for also, by_labels in found.items():
        if len(by_labels) > 1:
            numbers = sorted(by_labels)
            at, parts = places(numbers, log=True), [by_labels[number] for number in numbers]
            ticks = [f"{number:,}" for number in numbers]
            made.append(_trend(table, ", ".join(("labels", *also)), ticks, at, parts))
    return made


def _trend(
    table: Group, axis: str, ticks: Sequence[str], at: Sequence[float], parts: Sequence[Sequence[Line]]
) -> Trend:
    values = [{line.experiment: line.test[0] for line in finals(lines) if line.test} for lines in parts]
    experiments = dict.fromkeys(name for found in values for name in found)
    title = f"{table.protocol} on {table.dataset}: {table.metric} by {axis}"
    return Trend(title, ticks, at, {name: [found.get(name) for found in values] for name in experiments})
