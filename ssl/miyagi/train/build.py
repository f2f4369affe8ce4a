"""From the total description of a training to what trains: the method on its encoder, the loop, its monitor."""

from functools import partial

import numpy as np
import torch

from miyagi.data.batch import DataInfo
from miyagi.data.loader import Loader
from miyagi.data.rng import fold
from miyagi.errors import UserError
from miyagi.methods import base as methods
from miyagi.methods.base import Method
from miyagi.nn.encoders import base as encoders
from miyagi.paths import Paths
from miyagi.settings import Experiment, MethodSettings, Pretrain
from miyagi.train.distributed import ALONE, World
from miyagi.train.loop import Trainer
from miyagi.train.monitor import OnlineMonitor
from miyagi.train.setup import require_compiler


def build_method(experiment: Experiment, seed: int, info: DataInfo, device: torch.device) -> Method[MethodSettings]:
    """The experiment's method on its encoder, both initialised from `seed` alone."""
    torch.manual_seed(fold(seed, "init") >> 1)
    encoder = encoders.build(experiment.encoder, info.mean, info.std)
    encoders.check_size(encoder, experiment.encoder["name"], info.size, f"datasets.{experiment.dataset}.size")
    return methods.build(experiment.method, experiment.settings, encoder, info).to(device)


def build_trainer(
    experiment: Experiment,
    settings: Pretrain,
    seed: int,
    paths: Paths,
    method: Method[MethodSettings],
    info: DataInfo,
    world: World = ALONE,
    subset: np.ndarray | None = None,
) -> tuple[Trainer, OnlineMonitor | None]:
    """The loop around `method` on the experiment's data set, and what looks at the encoder (process 0 alone).

    Args:
        experiment: what is trained.
        settings: its `pretrain`.
        seed: of order, augmentation and whatever the method draws.
        paths: where the betons are.
        method: on its device.
        info: facts of the data.
        world: the processes that train together.
        subset: the positions in the training beton to train on alone; None: all.

    Raises:
        UserError: there are fewer images than processes to share them, or no compiler for `runtime.compile`.
    """
    runtime = experiment.runtime
    if runtime.compile:
        require_compiler(method.encoder.mean.device)
    train, val = (paths.beton(experiment.dataset, split) for split in ("train", "val"))
    loader = partial(Loader, size=info.size, workers=runtime.threads)
    images = info.n if subset is None else len(subset)
    whole = images - images % settings.batch_size
    shares = world.size * settings.accumulate
    if not whole and shares > 1:
        raise UserError(f"pretrain.batch_size: {settings.batch_size} images to share out, but there are only {images}")
    trainer = Trainer(
        method,
        loader(
            train, settings.part(world.size), seed=fold(seed, "order"), drop_last=True,
            limit=whole or None, subset=subset, rank=world.rank, world=world.size,
        ),
        experiment.views,
        settings,
        size=info.size,
        seed=seed,
        precision=runtime.precision,
        compile=runtime.compile,
        world=world,
    )  # fmt: skip
    look = settings.monitor
    if world.rank or not look.every:
        return trainer, None
    bank, queries = loader(train, 500, limit=look.images), loader(val, 500, limit=look.images)
    return trainer, OnlineMonitor(look, bank, queries, experiment.views)
