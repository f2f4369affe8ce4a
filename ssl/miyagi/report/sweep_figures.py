"""A sweep in pictures, as inline SVG: history, slices, parallel coordinates, importances, Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from miyagi.report.figures import LINE, drawing, plain
from miyagi.report.trials import Trial, front, is_number, is_wide, paths_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUIET = "#808080"
BEST = "#c2571a"  # at least 3:1 on the light and on the dark page


def _colour(trial: Trial) -> str:
    return BEST if trial.winner else QUIET if trial.state != "complete" else LINE


def _scatter(axes: "Axes", trials: Sequence[Trial], x: Callable[[Trial], float]) -> None:
    """The trials' objective at `x`; the winner and trial 0 are named, pruned ones are open."""
    for trial in trials:
        if trial.value is not None:
            face = "none" if trial.state != "complete" else _colour(trial)
            axes.scatter(x(trial), trial.value, s=26, edgecolors=_colour(trial), facecolors=face)
            if trial.winner or trial.number == 0:
                name = "defaults" if trial.number == 0 else "winner"
                axes.annotate(name, (x(trial), trial.value), textcoords="offset points", xytext=(4, 4), fontsize=8)
    plain(axes)


def history(name: str, trials: Sequence[Trial]) -> str:
    """The objective by trial number, and the best so far."""
    with drawing(f"sweep-history-{name}", 5.2, 2.8) as (figure, done):
        axes = figure.subplots()
        _scatter(axes, trials, lambda trial: trial.number)
        whole = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
        best = [max(t.value or 0 for t in whole[: i + 1]) for i in range(len(whole))]
        axes.step([trial.number for trial in whole], best, where="post", color=LINE, lw=1)
        axes.set_xlabel("trial")
        axes.set_ylabel(trials[0].metric)
        return done()


def slices(name: str, trials: Sequence[Trial]) -> str:
    """The objective against each dimension."""
    paths = paths_of(trials)
    rows = -(-len(paths) // 3)
    with drawing(f"sweep-slices-{name}", 7.2, 2.3 * rows) as (figure, done):
        panels = figure.subplots(rows, min(3, len(paths)), squeeze=False, sharey=True).ravel()
        for axes in panels[len(paths) :]:
            axes.set_visible(False)
        for axes, path in zip(panels, paths, strict=False):
            mine = [trial for trial in trials if path in trial.values]
            place, labels, log = _scale([trial.values[path] for trial in mine])
            _scatter(axes, mine, lambda trial, path=path, place=place: place(trial.values[path]))  # type: ignore[misc]
            if log:
                axes.set_xscale("log")
            if labels:
                axes.set_xticks(range(len(labels)), labels, fontsize=8)
            axes.set_xlabel(path)
        for axes in panels[:: min(3, len(paths))]:
            axes.set_ylabel(trials[0].metric)
        return done()


def parallel(name: str, trials: Sequence[Trial]) -> str:
    """Each dimension's values at their place between its smallest and its largest; a gap where a trial has none."""
    paths = paths_of(trials)
    with drawing(f"sweep-parallel-{name}", max(4.5, 1.3 * (len(paths) + 1)), 2.8) as (figure, done):
        axes = figure.subplots()
        columns = [[trial.values.get(path) for trial in trials] for path in paths]
        heights = [
            _heights(column, [path in t.values for t in trials]) for path, column in zip(paths, columns, strict=True)
        ]
        heights.append(_heights([trial.value for trial in trials], [trial.value is not None for trial in trials]))
        for i in sorted(range(len(trials)), key=lambda i: trials[i].winner):  # the winner lies on top
            width = 2.2 if trials[i].winner else 0.9
            axes.plot([height[i] for height in heights], color=_colour(trials[i]), lw=width, marker="o", ms=3)
        axes.set_xticks(range(len(paths) + 1), [*paths, trials[0].metric], rotation=20, ha="right", fontsize=8)
        axes.set_yticks([])
        plain(axes)
        return done()


def importances(name: str, weights: Mapping[str, float]) -> str:
    """A bar a dimension."""
    with drawing(f"sweep-importances-{name}", 4.6, 0.8 + 0.32 * len(weights)) as (figure, done):
        axes = figure.subplots()
        order = sorted(weights, key=lambda path: weights[path])
        axes.barh(order, [weights[path] for path in order], color=LINE)
        axes.set_xlabel("importance")
        plain(axes)
        return done()


def pareto(name: str, trials: Sequence[Trial]) -> str:
    """The objective against the seconds, and the Pareto front."""
    with drawing(f"sweep-pareto-{name}", 4.6, 2.8) as (figure, done):
        axes = figure.subplots()
        _scatter(axes, [trial for trial in trials if trial.seconds is not None], lambda trial: trial.seconds or 0.0)
        best = front(trials)
        axes.step([t.seconds or 0.0 for t in best], [t.value or 0.0 for t in best], where="post", color=LINE, lw=1)
        axes.set_xlabel("seconds of training")
        axes.set_ylabel(trials[0].metric)
        return done()


def _scale(values: Sequence[Any]) -> tuple[Callable[[Any], float], list[str], bool]:
    """Where a value stands, the labels of a scale without numbers, and whether a scale of numbers is logarithmic."""
    if all(map(is_number, values)):
        return float, [], is_wide(values)
    labels = sorted({short(value) for value in values})
    return lambda value: float(labels.index(short(value))), labels, False


def _heights(values: Sequence[Any], there: Sequence[bool]) -> list[float]:
    """0 to 1; NaN where there is no value."""
    from math import log10, nan

    place, _, log = _scale([value for value, known in zip(values, there, strict=True) if known] or [0.0])
    at = [(log10(place(v)) if log else place(v)) if known else nan for v, known in zip(values, there, strict=True)]
    known = [height for height in at if height == height]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return [(height - low) / (high - low) if high > low else (0.5 if height == height else nan) for height in at]
