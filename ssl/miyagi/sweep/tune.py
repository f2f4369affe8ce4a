"""A sweep from its beginning to its winner, and a further machine's part in it."""

import os
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from miyagi.errors import UserError
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.settings import Experiment
from miyagi.sweep import storage, table, workers
from miyagi.sweep.fresh import Fresh, candidates, scored, winner
from miyagi.sweep.session import Session, Tracked, session
from miyagi.sweep.space import Space, Values, label
from miyagi.sweep.study import results, work
from miyagi.train import checkpoint, launch

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Found:
    """What a sweep found: what will be trained, and the text of trials.csv."""

    experiment: Experiment
    trials: str


def tune(name: str, params: Params, paths: Paths, tracked: Tracked) -> Found:
    """Run what is left of the sweep of `experiments.NAME` and name its winner.

    Raises:
        UserError: the sweep is not possible, or none of its trials has a value.
    """
    here = session(name, params, paths, tracked)
    with checkpoint.scratch(here.scratch.parent, here.key):
        study = _finished(here)
        trials = results(here, study)
        values = {number: drawn(here.space, trial) for number, trial in trials.items()}
        fresh = {number: scored(here, values[number], number) for number in candidates(study, trials)}
    best = winner(fresh)
    if best is None:
        raise UserError(f"experiments.{name}.sweep: no trial has a value; see {here.journal}, or change the space")
    rows = [_row(here, number, trial, values[number], fresh, best) for number, trial in trials.items()]
    seconds = here.sweep.objective.seconds
    return Found(here.space.final(values[best]), table.text(rows, list(here.space.dimensions), seconds))


def join(name: str, params: Params, paths: Paths, tracked: Tracked) -> None:
    """Run trials of a sweep that another process began, until all are there.

    Raises:
        UserError: the study lies in a file that this process cannot share.
    """
    launch.die_with_the_launcher()
    here = session(name, params, paths, tracked)
    if here.sweep.storage is None and launch.LAUNCHER not in os.environ:
        raise UserError(
            f"experiments.{name}.sweep.storage: further machines share a study in Postgres, not in a journal file; "
            "processes of this machine are `jobs`"
        )
    work(here, here.open())


def drawn(space: Space, trial: FrozenTrial) -> Values:
    """A trial's values, as they stand in params.yaml; empty where it ended before it drew them."""
    values: Values = {}
    for path, dimension in space.dimensions.items():
        if path in trial.params:
            value = trial.params[path]
            if dimension.choices is not None:
                value = dimension.choices[[label(choice) for choice in dimension.choices].index(value)]
            values[path] = value
    return values


def _finished(here: Session) -> optuna.Study:
    """The study with all its trials."""
    if here.sweep.storage is None:
        storage.rewind(here.journal)
    study = here.open()
    if here.sweep.storage is None:
        workers.interrupted(study)
    with workers.working(here.name, here.paths, here.sweep.jobs - 1) as others:
        work(here, study, lambda: others.check(study, here.sweep.storage is None))
    return study


def _row(
    here: Session, number: int, trial: FrozenTrial, values: Values, fresh: dict[int, Fresh | None], best: int
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": number,
        "state": STATES[trial.state],
        "reason": trial.user_attrs.get(storage.REASON),
        "epochs": trial.user_attrs.get("epochs"),
        "metric": here.sweep.objective.metric,
        "winner": number == best,
        "reproducible": here.sweep.reproducible,
        **{table.PREFIX + path: value for path, value in values.items()},
    }
    if trial.values:
        row |= dict(zip(("value", "seconds"), trial.values, strict=False))
    if score := fresh.get(number):
        low, high = score.span() or (None, None)
        row |= {"fresh": score.mean, "fresh_low": low, "fresh_high": high}
        if number and (own := fresh.get(0)):
            row |= dict(zip(("vs_defaults", "vs_low", "vs_high"), score.minus(own) or (), strict=False))
    return row
