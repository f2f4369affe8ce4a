"""`jobs: N`: further processes of this machine that run trials of the same study, and end with the one that began."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import optuna
from optuna.trial import TrialState

from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.sweep.storage import WORKER, ended, latest, revive
from miyagi.train.launch import LAUNCHER

NAMELESS = timedelta(minutes=1)
"""A trial is begun a moment before its worker's name stands in it; one that has no name for so long has no worker."""


class Workers:
    """The processes that this one started."""

    def __init__(self, name: str, paths: Paths, count: int) -> None:
        command = [sys.executable, "-P", "-m", "miyagi.cli", "sweep-worker", name]
        environment = os.environ | {LAUNCHER: str(os.getpid())}
        self.processes = [subprocess.Popen(command, cwd=paths.root, env=environment) for _ in range(count)]

    def check(self, study: optuna.Study, ours: bool) -> None:
        """Let the trials of those that died be tried again by the others.

        Args:
            study: that they share.
            ours: whether nobody else is at work on it; else a trial of an unknown worker is not known to be dead.

        Raises:
            UserError: one ended with a mistake that the user can mend; it told which.
        """
        if any(process.poll() == 2 for process in self.processes):
            raise UserError("a worker of the sweep ended with the error above")
        alive = {process.pid for process in self.processes if process.poll() is None} | {os.getpid()}
        for trial in latest(study.get_trials(deepcopy=False)).values() if ours else ():
            worker = trial.user_attrs.get(WORKER)
            waited = worker is None and trial.datetime_start and datetime.now() - trial.datetime_start > NAMELESS
            if trial.state == TrialState.RUNNING and (worker not in alive if worker else waited):
                revive(study, trial)


@contextmanager
def working(name: str, paths: Paths, count: int) -> Iterator[Workers]:
    """`count` workers, which are ended with the block."""
    workers = Workers(name, paths, count)
    try:
        yield workers
    finally:
        for process in workers.processes:
            process.terminate()
        for process in workers.processes:
            process.wait()


def interrupted(study: optuna.Study) -> None:
    """When nobody else can be at work on a study: let every trial without a result be tried again."""
    for trial in latest(study.get_trials(deepcopy=False)).values():
        if not ended(trial) and trial.state != TrialState.WAITING:
            revive(study, trial)
