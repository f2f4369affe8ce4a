"""Our side: what `prepare` wrote, loaded, augmented and trained on by the classes that the `pretrain` stage uses."""

import copy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import KEY
from miyagi.data.batch import Batch, View
from miyagi.data.loader import Loader
from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.rng import Key, fold
from miyagi.methods import base as methods
from miyagi.metrics.knn import knn
from miyagi.nn.encoders import base as encoders
from miyagi.params import validate, views
from miyagi.paths import Paths
from miyagi.registry import METHODS
from miyagi.settings import Pretrain, Runtime
from miyagi.train.features import features
from miyagi.train.loop import Trainer
from miyagi.train.setup import set_up


def trainer(
    root: str,
    entry: dict[str, Any],
    *,
    width: int,
    threads: int,
    seed: int,
    images: int | None = None,
    fused: bool = True,
    kind: type[Trainer] = Trainer,
) -> Trainer:
    """What the `pretrain` stage would train, without its monitor.

    Args:
        root: the project that holds the beton.
        entry: as under `experiments:` in params.yaml.
        width: of conv4.
        threads: torch's.
        seed: of initialisation, order, augmentation and the method.
        images: an epoch has only so many; None: all.
        fused: of conv4.
        kind: Trainer, or a kind of it.
    """
    own = dict(entry)
    method, augment, pretrain, runtime = (own.pop(name, {}) for name in ("method", "augment", "pretrain", "runtime"))
    machine = validate(Runtime, {"threads": threads, "device": "cpu", **runtime}, "runtime")
    device = set_up(machine)
    settings = validate(METHODS.settings(method), own, method)
    optimisation = validate(Pretrain, pretrain, "pretrain")
    paths = Paths(Path(root))
    info = data_info(read_manifest(paths.manifest(KEY)))
    torch.manual_seed(fold(seed, "init") >> 1)
    encoder = encoders.build({"name": "conv4", "width": width, "fused": fused}, info.mean, info.std)
    return kind(
        methods.build(method, settings.model_dump(mode="json"), encoder, info).to(device),
        Loader(paths.beton(KEY, "train"), optimisation.part(1), seed=fold(seed, "order"), drop_last=True, limit=images),
        views(settings.recipe, augment, method),
        optimisation,
        size=info.size,
        seed=seed,
        precision=machine.precision,
        compile=machine.compile,
    )


class OnNoise(Trainer):
    """Compute only: the same training on one batch of random tensors that is there already."""

    def batches(self, epoch: int, loader: Loader | None = None, views: Sequence[View] | None = None) -> Iterator[Batch]:
        n = min(self.settings.part(1), self.loader.images)
        generator = torch.Generator().manual_seed(0)
        sizes = [view.size or self.size for view in (self.method.views if views is None else views)]
        noise = [
            torch.rand(n, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
            for size in sizes
        ]
        batch = Batch(noise, torch.arange(n), torch.zeros(n, dtype=torch.int64), Key(self.seed, epoch))
        for _ in range(len(self.loader)):
            yield batch


class InTurn(OnNoise):
    """Data in one epoch, noise in the other: the two stand side by side, however the machine's speed drifts."""

    @staticmethod
    def on_noise(epoch: int) -> bool:
        """Noise comes first, then second, and so on, in each pair of epochs."""
        return epoch % 4 in (0, 3)

    def batches(self, epoch: int, loader: Loader | None = None, views: Sequence[View] | None = None) -> Iterator[Batch]:
        kind = OnNoise if self.on_noise(epoch) else Trainer
        return kind.batches(self, epoch, loader, views)


def first_pass(trained: Trainer) -> float:
    """Pass over the data twice; what the first pass took longer (compiling, caches), in seconds."""
    took = []
    for _ in range(2):
        start = time.perf_counter()
        for _ in trained.batches(0):
            pass
        took.append(time.perf_counter() - start)
    return max(0.0, took[0] - took[1])


def compiling(trained: Trainer) -> float:
    """Seconds that torch.compile takes: of a first step over those of a second one; neither leaves a trace."""
    before, batch = copy.deepcopy(trained.state()), next(trained.batches(0))
    trained.method.train()
    took = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(trained.device.type, trained.step.dtype, enabled=trained.step.dtype is not None):
            logged = trained.method(batch, 0.0)
        logged["loss"].backward()
        took.append(time.perf_counter() - start)
    trained.step.optimizer.zero_grad(set_to_none=True)
    trained.load_state(before)
    return max(0.0, took[0] - took[1])


def accuracy(trained: Trainer, root: str, k: int, temperature: float) -> float:
    """kNN accuracy in percent of the test images among the training images."""
    paths = Paths(Path(root))
    bank, labels = features(trained.method.encoder, Loader(paths.beton(KEY, "train"), 500)())
    queries, truth = features(trained.method.encoder, Loader(paths.beton(KEY, "test"), 500)())
    return 100 * float((knn(bank, labels, queries, min(k, len(bank)), temperature) == truth).mean())
