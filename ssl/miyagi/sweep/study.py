"""One study an experiment: trials until each has its result, by this process and by whoever else shares the study."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch
from optuna.storages import BaseStorage, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from miyagi.code import code_digest, declared
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.errors import UserError
from miyagi.files import digest
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.settings import Sweep
from miyagi.sweep import storage
from miyagi.sweep.objective import Result, progress, train
from miyagi.sweep.samplers import pruner, sampler
from miyagi.sweep.space import Space
from miyagi.train.loop import Diverged, Row
from miyagi.train.setup import on_gpu

PAUSE = 0.5
"""Seconds between two looks at what other workers do, when nothing is left to begin."""


class Track(Protocol):
    """What a trial tells of itself."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...


Tracked = Callable[[str, str, Mapping[str, Any]], AbstractContextManager[Track]]
"""(target, fingerprint, params) -> what tracks one trial."""


class Failed(Exception):
    """A trial has no value, for a reason that stands in the study; the next one begins."""


class Surplus(Exception):
    """Another worker began the last trial at the same moment."""


@dataclass
class Session:
    """One process at work on a sweep.

    Attributes:
        name: the experiment.
        sweep: its settings.
        space: its search space, checked.
        paths: the project's files.
        tracked: what tracks a trial.
        key: the digest of all that decides a trial's result; the study's name.
    """

    name: str
    sweep: Sweep
    space: Space
    paths: Paths
    tracked: Tracked
    key: str

    def __post_init__(self) -> None:
        self.begun = datetime.now()
        pretrain = self.space.short(self.space.defaults).pretrain
        assert pretrain is not None
        self.epochs, self.collapse_std = pretrain.epochs, pretrain.monitor.collapse_std

    @property
    def journal(self) -> Path:
        """The journal file; an experiment's key has no hyphen, so its journals are found by name."""
        return self.paths.studies / f"{self.name}-{self.key}.log"

    @property
    def scratch(self) -> Path:
        """The folder of what trials keep while they run."""
        return self.paths.studies / "running" / self.key

    def storage(self) -> BaseStorage:
        if self.sweep.storage is None:
            return storage.journal(self.journal)
        return storage.postgres(self.sweep.storage, self.sweep.heartbeat)

    def open(self) -> optuna.Study:
        """The study, made where it is not there yet."""
        directions = [StudyDirection.MAXIMIZE]
        if self.sweep.objective.seconds:
            directions.append(StudyDirection.MINIMIZE)
        return optuna.create_study(
            storage=self.storage(), study_name=self.key, directions=directions, load_if_exists=True,
            sampler=sampler(self.sweep, self.space, 0), pruner=pruner(self.sweep, self.epochs),
        )  # fmt: skip

    def work(self, study: optuna.Study, between: Callable[[], None] = lambda: None) -> None:
        """Run trials until every one of them has its result, or the time is over and nobody runs one.

        Args:
            study: what `open` gave.
            between: called before each look at the study.
        """
        while True:
            fail_stale_trials(study)
            between()
            trials = study.get_trials(deepcopy=False)
            places = storage.latest(trials)
            states = {trial.state for trial in places.values()}
            if len(places) >= self.space.places and all(map(storage.ended, places.values())):
                return
            over = bool(places) and self._over(trials)
            if not over and (len(places) < self.space.places or TrialState.WAITING in states):
                study.optimize(self._trial, n_trials=1, catch=(Failed, Surplus))
            elif TrialState.RUNNING in states:
                time.sleep(PAUSE)
            elif over:
                return
            else:  # whoever saw that a worker died, died too before it could say so
                for trial in places.values():
                    if not storage.ended(trial):
                        storage.revive(study, trial)

    def _over(self, trials: list[FrozenTrial]) -> bool:
        """Whether the budget is spent, by this process and by those before it."""
        if self.sweep.timeout is None:
            return False
        before = [
            trial.duration.total_seconds()
            for trial in trials
            if trial.duration and trial.datetime_start and trial.datetime_start < self.begun
        ]
        spent = (datetime.now() - self.begun).total_seconds() + sum(before) / self.sweep.jobs
        return spent > self.sweep.timeout

    def _trial(self, trial: optuna.Trial) -> float | tuple[float, float]:
        trial.set_user_attr(storage.WORKER, os.getpid())
        trials = trial.study.get_trials(deepcopy=False)
        number = storage.origin(trials[trial.number])
        earlier = [other for other in trials if other.number < number]
        if number == trial.number and len(storage.latest(earlier)) >= self.space.places:
            trial.set_user_attr(storage.REASON, "surplus")
            raise Surplus
        return self._run(trial, number)

    def _run(self, trial: optuna.Trial, number: int) -> float | tuple[float, float]:
        objective = self.sweep.objective
        trial.study.sampler = sampler(self.sweep, self.space, number)
        values = self.space.suggest(trial)
        try:
            experiment = self.space.short(values)
        except UserError:  # each value is possible, but not all of them together
            raise self._failed(trial, "impossible") from None
        params = {**values, "number": number, "study": self.key}
        ending: Exception | None = None
        result: Result | None = None
        with self.tracked(f"{self.name}-{number}", digest([self.key, number]), params) as run:

            def on_epoch(row: Row) -> None:
                run.log(row, int(row["epoch"]))
                self._judge(trial, number, row)

            try:
                result = train(experiment, self.sweep.seed, objective, self.paths, self.scratch, on_epoch)
                run.log({"objective": result.value, "seconds": result.seconds}, 0)
            except Diverged:
                ending = self._failed(trial, "diverged")
            except (Failed, optuna.TrialPruned) as error:
                ending = error
        said = f"{result.value:.2f}" if result else trial.user_attrs.get(storage.REASON, "pruned")
        print(f"{self.name}: trial {number} of {self.space.places}: {said}  {_words(values)}", flush=True)
        if ending is not None:
            raise ending
        assert result is not None
        return (result.value, result.seconds) if objective.seconds else result.value

    def _judge(self, trial: optuna.Trial, number: int, row: Row) -> None:
        """After an epoch: go on, or end a trial that has collapsed or is pruned. Trial 0 is trained to its end."""
        epoch, value = int(row["epoch"]), progress(row, self.sweep.objective)
        trial.set_user_attr("epochs", epoch)
        two = self.sweep.objective.seconds
        if not two:
            trial.report(value, epoch)
        if number == 0:
            return
        if row["std"] < self.collapse_std:
            if two:  # Optuna prunes one objective only
                raise self._failed(trial, "collapsed")
            trial.set_user_attr(storage.REASON, "collapsed")
            raise optuna.TrialPruned
        if not two and trial.should_prune():
            raise optuna.TrialPruned

    def _failed(self, trial: optuna.Trial, reason: str) -> Failed:
        trial.set_user_attr(storage.REASON, reason)
        return Failed(reason)


def _words(values: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{path} {value:.4g}" if isinstance(value, float) else f"{path} {value}" for path, value in values.items()
    )


def session(name: str, params: Params, paths: Paths, tracked: Tracked) -> Session:
    """A process's part in the sweep of an experiment.

    Raises:
        UserError: the experiment has no `sweep:` block, or the block is not possible.
    """
    sweep = params.sweep(name)
    if sweep is None:
        raise UserError(f"experiments.{name}: there is no sweep in this experiment; see `sweep:` in params.yaml")
    space = Space(name, params, sweep)
    own = params.experiment(name)
    entry = {key: value for key, value in params.experiments[name].items() if key != "sweep"}
    decides = [
        own.model_dump(mode="json"),
        # Choices of another recipe or encoder are completed from these.
        [entry, params.augment, params.encoder, params.pretrain.model_dump(mode="json")],
        # More trials go on with those that are there, and so do more processes.
        sweep.model_dump(mode="json", exclude={"trials", "timeout", "jobs", "storage", "heartbeat", "fresh_seeds"}),
        data_digest(read_manifest(paths.manifest(own.dataset))),
        code_digest(declared(paths.dag, "sweep", {"method": own.method})),
        [torch.__version__, optuna.__version__, "cuda" if on_gpu(own.runtime) else "cpu"],
    ]
    return Session(name, sweep, space, paths, tracked, digest(decides))
