"""One trial: draw its values, train, and end it early where that is right."""

import os
from collections.abc import Mapping
from typing import Any

from optuna import Trial, TrialPruned

from miyagi.errors import UserError
from miyagi.files import digest
from miyagi.sweep.objective import Result, progress, train
from miyagi.sweep.samplers import sampler
from miyagi.sweep.session import Session
from miyagi.sweep.storage import REASON, WORKER, origin
from miyagi.train.loop import Diverged, Row


class Failed(Exception):
    """A trial has no value, for a reason that stands in the study; the next one begins."""


def run(here: Session, trial: Trial) -> float | tuple[float, float]:
    """The trial's value, and its seconds where the sweep weighs them.

    Raises:
        TrialPruned: it ended early, for what its epochs showed.
        Failed: it diverged, its values cannot be had together, or other workers had begun the last trials already.
        UserError: no trial can be trained.
    """
    trial.set_user_attr(WORKER, os.getpid())
    trials = trial.study.get_trials(deepcopy=False)
    first = origin(trials[trial.number])
    number = len({origin(other) for other in trials if origin(other) < first})  # other attempts have numbers as well
    if number >= here.space.places:
        raise _failed(trial, "surplus")
    trial.study.sampler = sampler(here.sweep, here.space, number)
    values = here.space.suggest(trial)
    outcome = _trained(here, trial, number, values)
    said = f"{outcome.value:.2f}" if isinstance(outcome, Result) else trial.user_attrs.get(REASON, "pruned")
    print(f"{here.name}: trial {number} of {here.space.places}: {said}  {_words(values)}", flush=True)
    if not isinstance(outcome, Result):
        raise outcome
    return (outcome.value, outcome.seconds) if here.sweep.objective.seconds else outcome.value


def _trained(here: Session, trial: Trial, number: int, values: Mapping[str, Any]) -> Result | Exception:
    """The training's result, or why it has none. An end that was to be expected is no failure in MLflow."""
    try:
        experiment = here.space.short(values)
    except UserError:  # each value is possible, but not all of them together
        return _failed(trial, "impossible")
    params = {**values, "number": number, "study": here.key}
    with here.tracked(f"{here.name}-{number}", digest([here.key, number]), params) as tracked:

        def on_epoch(row: Row) -> None:
            tracked.log(row, int(row["epoch"]))
            judge(here, trial, number, row)

        try:
            result = train(experiment, here.sweep.seed, here.sweep.objective, here.paths, here.scratch, on_epoch)
        except Diverged:
            return _failed(trial, "diverged")
        except (Failed, TrialPruned) as ending:
            return ending
        tracked.log({"objective": result.value, "seconds": result.seconds}, here.epochs)
        return result


def judge(here: Session, trial: Trial, number: int, row: Row) -> None:
    """After an epoch: go on, or end a trial that has collapsed or is pruned. Trial 0 is trained to its end."""
    epoch, two = int(row["epoch"]), here.sweep.objective.seconds
    trial.set_user_attr("epochs", epoch)
    if not two:
        trial.report(progress(row, here.sweep.objective), epoch)
    if number == 0:
        return
    if row.get("collapsed"):
        ending = _failed(trial, "collapsed")
        raise ending if two else TrialPruned  # Optuna prunes one objective only
    if not two and trial.should_prune():
        raise TrialPruned


def _failed(trial: Trial, reason: str) -> Failed:
    trial.set_user_attr(REASON, reason)
    return Failed(reason)


def _words(values: Mapping[str, Any]) -> str:
    shown = {path: f"{value:.4g}" if isinstance(value, float) else value for path, value in values.items()}
    return "  ".join(f"{path} {value}" for path, value in shown.items())
