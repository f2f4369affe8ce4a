"""Sweeps in the report: what was tried, what mattered, and the winner beside the defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miyagi.report import sweep_figures
from miyagi.report.trials import Trial, importances, short


@dataclass(frozen=True)
class Sweep:
    """What the page shows of one experiment's sweep.

    Attributes:
        experiment: whose.
        metric: of the objective, and its split.
        reproducible: whether the same seed gives the same trials.
        words: counts and the winner in one sentence each.
        again: the trials that were scored on fresh seeds, trial 0 first.
        pictures: what is shown -> inline SVG.
    """

    experiment: str
    metric: str
    reproducible: bool
    words: Sequence[str]
    again: Sequence[Trial]
    pictures: Mapping[str, str]


def sweep(experiment: str, trials: Sequence[Trial], reproducible: bool) -> Sweep:
    """The pictures and words of a sweep that has trials."""
    (best,) = (trial for trial in trials if trial.winner)
    states = [trial.state for trial in trials]
    epochs = sum(trial.epochs for trial in trials)
    longest = max(trial.epochs for trial in trials)
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    shown = ", ".join(f"{path} {short(value)}" for path, value in best.values.items())
    words = [
        f"{len(trials)} trials ({counts}), {epochs} epochs in all; without pruning {len(trials) * longest}.",
        "The defaults won: no trial was better on fresh seeds."
        if best.number == 0
        else f"Trial {best.number} won: {shown}.",
    ]
    weights = importances(trials)
    pictures = {
        "The objective of each trial; the line is the best so far.": sweep_figures.history(experiment, trials),
        "The objective against each dimension.": sweep_figures.slices(experiment, trials),
        "Each line is a trial across all dimensions.": sweep_figures.parallel(experiment, trials),
    }
    if weights:
        told = "How much each dimension decides (PED-ANOVA)."
        pictures[told] = sweep_figures.importances(experiment, weights)
    if any(trial.seconds is not None for trial in trials):
        told = "Accuracy against seconds; the line is the Pareto front."
        pictures[told] = sweep_figures.pareto(experiment, trials)
    again = [trial for trial in trials if trial.fresh]
    return Sweep(experiment, best.metric, reproducible, words, again, pictures)
