"""One process's part in one sweep: what is tuned, where its study is, and what identifies it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch
from optuna.study import StudyDirection

from miyagi.code import code_digest, declared
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.errors import UserError
from miyagi.files import digest
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.settings import Sweep
from miyagi.sweep import storage
from miyagi.sweep.samplers import pruner, sampler
from miyagi.sweep.space import Space
from miyagi.train.setup import on_gpu

INDIFFERENT = {"trials", "fresh_seeds", "timeout", "jobs", "storage", "heartbeat"}
"""Settings that change no trial: with more trials, or more processes, a sweep goes on with those that it has."""


class Track(Protocol):
    """What a trial tells of itself."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Figures at a step."""


Tracked = Callable[[str, str, Mapping[str, Any]], AbstractContextManager[Track]]
"""(target, fingerprint, params) -> what tracks one trial."""


@dataclass(frozen=True)
class Session:
    """One process at work on a sweep.

    Attributes:
        name: the experiment.
        sweep: its settings.
        space: its search space, checked.
        paths: the project's files.
        tracked: what tracks a trial.
        key: the digest of all that decides a trial's result; the study's name.
        epochs: of a trial.
        begun: when this process began.
    """

    name: str
    sweep: Sweep
    space: Space
    paths: Paths
    tracked: Tracked
    key: str
    epochs: int
    begun: datetime = field(default_factory=datetime.now)

    @property
    def journal(self) -> Path:
        """The journal file. An experiment's name has no hyphen, so its journals are found by name."""
        return self.paths.studies / f"{self.name}-{self.key}.log"

    @property
    def scratch(self) -> Path:
        """The folder of what trials keep while they run."""
        return self.paths.studies / "running" / self.key

    def open(self) -> optuna.Study:
        """The study, made where it is not there yet."""
        where = self.sweep.storage
        opened = storage.postgres(where, self.sweep.heartbeat) if where else storage.journal(self.journal)
        two = [StudyDirection.MINIMIZE] if self.sweep.objective.seconds else []
        return optuna.create_study(
            storage=opened, study_name=self.key, directions=[StudyDirection.MAXIMIZE, *two], load_if_exists=True,
            sampler=sampler(self.sweep, self.space, 0), pruner=pruner(self.sweep, self.epochs),
        )  # fmt: skip


def session(name: str, params: Params, paths: Paths, tracked: Tracked) -> Session:
    """A process's part in the sweep of an experiment.

    Raises:
        UserError: the experiment has no `sweep:` block, or the block is not possible.
    """
    sweep = params.sweep(name)
    if sweep is None:
        raise UserError(f"experiments.{name}: there is no sweep in this experiment; see `sweep:` in params.yaml")
    space = Space(name, params, sweep)
    own, short = params.experiment(name), space.short(space.defaults).pretrain
    assert short is not None
    decides = [
        own.model_dump(mode="json"),
        # Choices of another recipe or encoder are completed from these.
        {key: value for key, value in params.experiments[name].items() if key != "sweep"},
        [params.augment, params.encoder, params.pretrain.model_dump(mode="json")],
        sweep.model_dump(mode="json", exclude=INDIFFERENT),
        data_digest(read_manifest(paths.manifest(own.dataset))),
        code_digest(declared(paths.dag, "sweep", {"method": own.method})),
        [torch.__version__, optuna.__version__, "cuda" if on_gpu(own.runtime) else "cpu"],
    ]
    return Session(name, sweep, space, paths, tracked, digest(decides), short.epochs)
