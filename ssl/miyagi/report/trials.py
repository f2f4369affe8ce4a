"""`trials.csv` read back: one line a trial, and which dimensions mattered."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "space."
"""Before a dimension's path in the header."""
ENOUGH = 4
"""Whole trials below which importances would say nothing."""


@dataclass(frozen=True)
class Trial:
    """One line of `trials.csv`.

    Attributes:
        number, state, reason, epochs, metric: as they stand there.
        value: of the metric; None where the trial has none.
        seconds: of the second objective, where the sweep has one.
        values: path -> value, of the dimensions that the trial has.
        fresh: the mean over fresh seeds, with its interval; None where it was not scored again.
        versus: the paired difference to trial 0's, with its interval.
        winner: whether it is what was trained.
    """

    number: int
    state: str
    reason: str
    epochs: int
    metric: str
    value: float | None
    seconds: float | None
    values: Mapping[str, Any]
    fresh: tuple[float, ...] | None
    versus: tuple[float, ...] | None
    winner: bool


def read(text: str) -> tuple[list[Trial], bool]:
    """The trials of a `trials.csv`, and whether the sweep is reproducible; no trials where there was no sweep.

    Raises:
        KeyError, ValueError: the text is none that a sweep writes.
    """
    lines = list(csv.DictReader(io.StringIO(text), strict=True))

    def numbers(line: Mapping[str, str], *columns: str) -> tuple[float, ...] | None:
        found = [float(line[column]) for column in columns if line[column]]
        return tuple(found) or None

    trials = [
        Trial(
            number=int(line["number"]),
            state=line["state"],
            reason=line["reason"],
            epochs=int(line["epochs"] or 0),
            metric=line["metric"],
            value=float(line["value"]) if line["value"] else None,
            seconds=float(line["seconds"]) if line.get("seconds") else None,
            values={
                key.removeprefix(PREFIX): json.loads(cell)
                for key, cell in line.items()
                if key.startswith(PREFIX) and cell
            },
            fresh=numbers(line, "fresh", "fresh_low", "fresh_high"),
            versus=numbers(line, "vs_defaults", "vs_low", "vs_high"),
            winner=line["winner"] == "yes",
        )
        for line in lines
    ]
    if trials and sum(trial.winner for trial in trials) != 1:
        raise ValueError("there is not one winner")
    return trials, all(line["reproducible"] == "yes" for line in lines)


def importances(trials: Sequence[Trial]) -> dict[str, float]:
    """Path -> share of what distinguishes good trials (Watanabe et al., IJCAI 2023); empty with too few whole trials.

    PED-ANOVA compares the distribution of a dimension among the best trials with that among all of them.
    """
    whole = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if len(whole) < ENOUGH or len({trial.value for trial in whole}) == 1:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scales = {path: _distribution([t.values[path] for t in whole if path in t.values]) for path in paths_of(whole)}
    study = optuna.create_study(direction="maximize")
    for trial in whole:
        mine = {path: _plain(value) for path, value in trial.values.items()}
        own = {path: scales[path] for path in mine}
        study.add_trial(optuna.trial.create_trial(params=mine, distributions=own, value=trial.value))
    return dict(optuna.importance.get_param_importances(study))


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats in value and seconds at once, the fastest first."""
    found: list[Trial] = []
    whole = [t for t in trials if t.state == "complete" and t.value is not None and t.seconds is not None]
    for trial in sorted(whole, key=lambda t: (t.seconds or 0, -(t.value or 0))):
        if not found or (trial.value or 0) > (found[-1].value or 0):
            found.append(trial)
    return found


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_wide(values: Sequence[float]) -> bool:
    """Whether a logarithmic scale shows them better."""
    return min(values) > 0 and max(values) >= 10 * min(values)


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def paths_of(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(path for trial in trials for path in trial.values))


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(map(is_number, values)) and len(set(values)) > 1:
        return FloatDistribution(min(values), max(values), log=is_wide(values))
    return CategoricalDistribution(sorted({_plain(value) for value in values}, key=str))


def _plain(value: Any) -> Any:
    return value if is_number(value) else short(value)
