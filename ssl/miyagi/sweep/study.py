"""Trials until each has its result, by this process and by whoever else shares the study."""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from miyagi.sweep import trial
from miyagi.sweep.session import Session
from miyagi.sweep.storage import ended, latest, revive

PAUSE = 0.5
"""Seconds between two looks at what other workers do, when nothing is left to begin."""


def work(here: Session, study: optuna.Study, between: Callable[[], None] = lambda: None) -> None:
    """Run trials until every one of them has its result, or the time is over and nobody runs one.

    A trial is a place, numbered from 0, and counts once however often it has to be begun: `latest`. Two workers may
    both begin what they take for the last one; the later of the two sees that and gives it up (`trial.run`).

    Args:
        here: this process's part.
        study: what `Session.open` gave.
        between: called before each look at the study.
    """
    while True:
        fail_stale_trials(study)
        between()
        trials = study.get_trials(deepcopy=False)
        places = latest(trials)
        states = {found.state for found in places.values()}
        if len(places) >= here.space.places and all(map(ended, places.values())):
            return
        over = bool(places) and _over(here, trials)
        if not over and (len(places) < here.space.places or TrialState.WAITING in states):
            study.optimize(partial(trial.run, here), n_trials=1, catch=(trial.Failed,))
        elif TrialState.RUNNING in states:
            time.sleep(PAUSE)
        elif over:
            return
        else:  # whoever saw that a worker died, died too before it could say so
            for found in places.values():
                if not ended(found):
                    revive(study, found)


def results(here: Session, study: optuna.Study) -> dict[int, FrozenTrial]:
    """Number -> trial, in order, of those that have a result; another attempt stands in the place of the first."""
    places = sorted(latest(study.get_trials(deepcopy=False)).items())[: here.space.places]
    return {number: found for number, (_, found) in enumerate(places) if ended(found)}


def _over(here: Session, trials: list[FrozenTrial]) -> bool:
    """Whether the budget of time is spent, by this process and by those before it."""
    if here.sweep.timeout is None:
        return False
    before = [
        found.duration.total_seconds()
        for found in trials
        if found.duration and found.datetime_start and found.datetime_start < here.begun
    ]
    spent = (datetime.now() - here.begun).total_seconds() + sum(before) / here.sweep.jobs
    return spent > here.sweep.timeout
