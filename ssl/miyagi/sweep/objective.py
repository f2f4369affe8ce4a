"""What a trial is worth: a short training, and one number of its encoder on the validation split."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from miyagi.data.batch import DataInfo
from miyagi.data.loader import Loader
from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.rng import Key, permutation
from miyagi.metrics.knn import knn
from miyagi.nn.encoders.base import Encoder
from miyagi.paths import Paths
from miyagi.protocols.base import Features
from miyagi.protocols.linear_fits import logistic
from miyagi.settings import Experiment, Objective
from miyagi.train.build import build_method, build_trainer
from miyagi.train.features import features
from miyagi.train.loop import Row
from miyagi.train.setup import set_up

ITERATIONS, TOLERANCE = 300, 1e-3
"""Of the linear metric's L-BFGS; the defaults of the protocol `linear`."""


@dataclass(frozen=True)
class Result:
    """What one training is worth.

    Attributes:
        value: of the metric, the higher the better.
        images: one number a validation image whose mean is `value`; None for a metric that is no such mean.
        seconds: that the training took.
    """

    value: float
    images: NDArray[np.float64] | None
    seconds: float


def progress(row: Row, objective: Objective) -> float:
    """What pruning looks at after an epoch: the online kNN, or for a metric without labels the metric itself."""
    if objective.metric == "rankme":
        return row["rank"]
    if objective.metric == "alignment_uniformity":  # the sum is a loss (Wang and Isola, ICML 2020)
        return -(row["alignment"] + row["uniformity"])
    return row["knn"]


def train(
    experiment: Experiment,
    seed: int,
    objective: Objective,
    paths: Paths,
    scratch: Path,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> Result:
    """Train an experiment for a trial and score its encoder.

    Args:
        experiment: what `Space.short` gives.
        seed: of everything that is random in it.
        objective: the metric, and how many images are trained on.
        paths: where the betons are.
        scratch: a folder for what is deleted at the end.
        on_epoch: called with each epoch's row; what it raises ends the training.

    Raises:
        UserError: the training is not possible; Diverged among them.
    """
    settings = experiment.pretrain
    assert settings is not None
    device = set_up(experiment.runtime)
    info = data_info(read_manifest(paths.manifest(experiment.dataset)))
    method = build_method(experiment, seed, info, device)
    rows = subset(info.n, objective.train_limit)
    trainer, monitor = build_trainer(experiment, settings, seed, paths, method, info, subset=rows)
    scratch.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with TemporaryDirectory(dir=scratch) as folder:
        history = trainer.fit(Path(folder), monitor, lambda row, rate: on_epoch(row))
    seconds = time.perf_counter() - start
    if objective.metric in ("rankme", "alignment_uniformity"):
        return Result(progress(history[-1], objective), None, seconds)
    images = hits(method.downstream()[0], experiment, objective, paths, info, rows)
    return Result(float(images.mean()), images, seconds)


def subset(images: int, limit: int | None) -> NDArray[np.int64] | None:
    """The same `limit` of `images` positions for all trials, in the file's order; None for all."""
    if limit is None or limit >= images:
        return None
    return np.sort(permutation(Key(0, 0), "sweep/subset", images)[:limit])


def hits(
    encoder: Encoder,
    experiment: Experiment,
    objective: Objective,
    paths: Paths,
    info: DataInfo,
    rows: NDArray[np.int64] | None,
) -> NDArray[np.float64]:
    """100 for each validation image that is told rightly from the features of the images trained on, else 0."""
    train_beton, val_beton = (paths.beton(experiment.dataset, split) for split in ("train", "val"))
    loader = partial(Loader, batch_size=500, size=info.size, workers=experiment.runtime.threads)
    bank = Features(*features(encoder, loader(train_beton, subset=rows)()))
    queries = Features(*features(encoder, loader(val_beton)()))
    if objective.metric == "knn":
        predicted = knn(bank.x, bank.y, queries.x, min(objective.k, len(bank.x)))
    else:
        predicted = logistic(bank, queries, [objective.c], ITERATIONS, TOLERANCE).predict(queries.x)
    found: NDArray[np.float64] = 100.0 * (predicted == queries.y)
    return found
