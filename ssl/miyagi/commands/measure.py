"""What a stage costs, measured by doing a little of it: the stages' own code on two small copies of the data.

How a time grows from the smaller copy to the larger one is how it goes on to the configured number of images.
"""

import io
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

from miyagi.data.betons import write_beton
from miyagi.data.decode import Beton
from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.splits import split
from miyagi.errors import UserError
from miyagi.files import canonical, write_json
from miyagi.methods.base import Method
from miyagi.params import Params
from miyagi.paths import SPLITS, Paths
from miyagi.registry import SOURCES
from miyagi.settings import FinetuneSettings, Frozen, Grid, Pretrain
from miyagi.stages import embed, finetune, prepare, probe, sweep
from miyagi.sweep.fresh import TOP
from miyagi.sweep.objective import train
from miyagi.sweep.space import Space
from miyagi.train.build import build_method, build_trainer
from miyagi.train.loop import Trainer
from miyagi.train.setup import set_up
from miyagi.train.weights import save_module

TRAIN = 3200
"""Training images of the larger copy, the other splits in proportion: 1 % of the labels still fill a batch of 32."""
RATIO = 4
"""How many times as many images the larger copy has as the smaller one."""
WARM, ENOUGH, MOST = 2, 2.0, 12
"""Training steps that are not counted; seconds of counted steps that are enough; counted steps at most."""
STEPS = (2, 22)
"""Lengths of the fine-tunings that are tried."""


@dataclass(frozen=True)
class Cost:
    """Seconds, and bytes of outs."""

    seconds: float = 0.0
    bytes: float = 0.0


def started(module: str, more: str = "") -> float:
    """Seconds of a process that does nothing but import what a stage works with, and MLflow."""
    code = f"import miyagi.stages.{module}, miyagi.tracking.store as s; s.load('sqlite:'); {more}"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def timed(work: Callable[..., Any], *arguments: Any) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def grown(small: float, large: float, times: float) -> float:
    """What `small` and `large`, of the two copies, become on `times` as many images as the larger one has.

    A line through the two; where they grew faster than the images (kNN compares all with all), a power, at most 2.
    """
    if large > RATIO * small > 0:
        return float(large * times ** min(2.0, math.log(large / small) / math.log(RATIO)))
    return large + max(0.0, large - small) * RATIO / (RATIO - 1) * (times - 1)


class Bench:
    """Does a little of each stage; what is alike for two stages is done once.

    Args:
        params: the project's.
        paths: the project's files, which are only read.
        root: a temporary folder's, where everything is written.
    """

    def __init__(self, params: Params, paths: Paths, root: Paths) -> None:
        self.params, self.paths, self.seed = params, paths, params.seeds[0]
        self.small, self.large = Paths(root.root / "small"), Paths(root.root / "large")
        for copy in (self.small, self.large):
            copy.root.mkdir()
            shutil.copyfile(paths.dag, copy.dag)  # a row says which code it comes from
        self.counts: dict[str, dict[str, int]] = {}
        self._known: dict[str, Cost] = {}

    def prepare(self, dataset: str) -> Cost:
        """Both copies, from the betons where there are any; else the source is read as a whole, and written in part."""
        settings, reading = self.params.datasets[dataset], 0.0
        if self.paths.manifest(dataset).is_file():
            manifest = read_manifest(self.paths.manifest(dataset))
            self.counts[dataset] = {name: manifest["counts"][name]["total"] for name in SPLITS}
            small, large = (timed(self._copy, dataset, *copy) for copy in self._copies(dataset, 1))
        else:
            start = time.perf_counter()
            raw = SOURCES.load(settings.source).load(settings, self.paths)
            own = (images.labels if images else None for images in (raw.test, raw.val))
            chosen = split(dataset, settings, raw.classes, raw.train.labels, *own)
            reading = time.perf_counter() - start
            self.counts[dataset] = {name: len(getattr(chosen, name)) for name in SPLITS}
            small, large = (
                timed(prepare.run, dataset, settings.model_copy(update=_as_limits(counts)), copy) - reading
                for copy, counts in self._copies(dataset, len(raw.classes))
            )
        least, most = (
            sum(file.stat().st_size for file in copy.manifest(dataset).parent.iterdir())
            for copy in (self.small, self.large)
        )
        times = self._times(dataset)
        return Cost(reading + max(0.0, grown(small, large, times)), grown(least, most, times))

    def sweep(self, name: str) -> Cost:
        """The trials and what scores the best of them again, each as long as a training with the defaults."""
        entry = {key: value for key, value in self.params.experiments[name].items() if key != "sweep"}
        plain = self.params.model_copy(update={"experiments": {**self.params.experiments, name: entry}})
        for copy in (self.small, self.large):
            sweep.run(name, plain, copy)
        own = self.params.sweep(name)
        if own is None:
            return Cost(timed(self.params.experiment, name))
        space = Space(name, self.params, own)
        short, objective = space.short(space.defaults), own.objective
        one = timed(train, short, own.seed, objective, self.large, self.large.scratch)
        limit = objective.train_limit or math.inf
        counts = read_manifest(self.large.manifest(short.dataset))["counts"]["train"]["total"]
        one *= min(limit, self.counts[short.dataset]["train"]) / min(limit, counts)
        trainings = own.trials / own.jobs + (TOP + 1) * own.fresh_seeds
        return Cost(min(one * trainings, own.timeout or math.inf))

    def pretrain(self, name: str) -> Cost:
        """The method's own steps, a look of the monitor, and what the method does before an epoch."""
        experiment = self.params.experiment(name)
        info = data_info(read_manifest(self.large.manifest(experiment.dataset)))
        device = set_up(experiment.runtime)
        method = build_method(experiment, self.seed, info, device)
        kept = {"experiment": experiment.model_dump(mode="json"), "classes": info.classes, "size": info.size}
        for copy in (self.small, self.large):
            save_module(method.encoder, copy.run(name, self.seed) / "encoder.safetensors", kept)
            save_module(method.head, copy.run(name, self.seed) / "head.safetensors", kept)
        size = sum(file.stat().st_size for file in self.large.run(name, self.seed).iterdir())
        settings = experiment.pretrain
        if settings is None:
            return Cost(0.0, size)
        trainer, monitor = build_trainer(experiment, settings, self.seed, self.large, method, info)
        images = self.counts[experiment.dataset]["train"]
        method.train()
        before = 0.0
        if type(method).before_epoch is not Method.before_epoch:
            before = timed(trainer.before_epoch, 0) * images / trainer.loader.images
        seconds = settings.epochs * (max(1, images // settings.batch_size) * self._step(trainer, settings) + before)
        if monitor:
            wanted = settings.monitor.images
            seen, whole = (
                sum(min(wanted, counts[name]) for name in ("train", "val"))
                for counts in (self._copied(experiment.dataset), self.counts[experiment.dataset])
            )
            look = timed(monitor, method.encoder, 1, True) * whole / seen
            seconds += look * math.ceil(settings.epochs / settings.monitor.every)
        return Cost(seconds, size)

    def _step(self, trainer: Trainer, settings: Pretrain) -> float:
        """Seconds a step, loading and augmentation included: the median, which a hiccup of the machine leaves alone."""
        times: list[float] = []
        for epoch in count():
            batches = trainer.batches(epoch)
            for _ in range(max(1, len(trainer.loader) // settings.accumulate)):
                parts = islice(batches, settings.accumulate)
                times.append(timed(trainer.step, parts, 0.0, settings.lr))
                counted = times[WARM:]
                if sum(counted) >= ENOUGH or len(counted) >= MOST:
                    return median(counted)
        raise AssertionError("epochs have no end")

    def embed(self, name: str, dataset: str) -> Cost:
        """Once for each encoder: what differs between methods is a small head."""

        def work(copy: Paths) -> None:
            embed.run(name, self.seed, dataset, self.params.embed, copy)

        def measured() -> Cost:
            small, large = timed(work, self.small), timed(work, self.large)
            times = self._times(dataset)
            return Cost(grown(small, large, times), times * self.large.bank(name, self.seed, dataset).stat().st_size)

        return self._once(measured, "embed", self._encoder(name), dataset)

    def probe(self, name: str, protocol: str) -> Cost:
        """Once for each encoder; the protocol sees the features of an encoder that has hardly learnt."""
        datasets = list(self.params.datasets)
        settings = self.params.protocol(protocol)
        seen: dict[Path, set[str]] = {}

        def work(copy: Paths) -> None:
            for dataset in datasets:
                if not copy.bank(name, self.seed, dataset).is_file():
                    embed.run(name, self.seed, dataset, self.params.embed, copy)
            # A data set that is left out of so few images is no news of the real stage.
            with redirect_stderr(io.StringIO()):
                summary = probe.run(name, self.seed, protocol, datasets, settings, copy)
            seen[copy.root] = {key.partition(".")[0] for key in summary}

        def measured() -> Cost:
            large, small = timed(work, self.large), 0.0
            with suppress(UserError):
                small = timed(work, self.small)
            if seen.get(self.small.root) != seen[self.large.root]:  # too few images, e.g. for k neighbours
                small = large / RATIO
            return self._evaluated(name, protocol, grown(small, large, max(map(self._times, datasets))))

        return self._once(measured, "probe", self._encoder(name), protocol)

    def finetune(self, name: str, protocol: str) -> Cost:
        """Once for each encoder, from pretraining and from scratch: with few steps, and with a few more."""
        settings = self.params.protocol(protocol, "finetune")
        assert isinstance(settings, FinetuneSettings)
        datasets = self.params.targets(protocol)
        trains = self.params.experiment(name).pretrain is not None

        def work(steps: int) -> None:
            finetune.run(name, self.seed, protocol, datasets, _shortened(settings, steps), self.large)

        def measured() -> Cost:
            few, more = (timed(work, steps) for steps in STEPS)
            step = max(0.0, more - few) / (STEPS[1] - STEPS[0])
            grid = getattr(settings, "finetune" if trains else "scratch", getattr(settings, "grid", None))
            steps = sum(grid.steps) if grid else 0
            times = max(map(self._times, datasets))
            return self._evaluated(name, protocol, max(0.0, few - STEPS[0] * step) * times + step * steps)

        return self._once(measured, "finetune", self._encoder(name), protocol, trains)

    def _once(self, measured: Callable[[], Cost], *what: object) -> Cost:
        key = canonical(what)
        if key not in self._known:
            self._known[key] = measured()
        return self._known[key]

    def _encoder(self, name: str) -> dict[str, Any]:
        return self.params.experiment(name).encoder

    def _evaluated(self, name: str, protocol: str, seconds: float) -> Cost:
        files = (where(name, self.seed, protocol) for where in (self.large.rows, self.large.predictions))
        return Cost(seconds, sum(file.stat().st_size for file in files))

    def _times(self, dataset: str) -> float:
        """How many times as many images the data set has as its larger copy."""
        return sum(self.counts[dataset].values()) / sum(self._copied(dataset).values())

    def _copied(self, dataset: str) -> dict[str, int]:
        counts = read_manifest(self.large.manifest(dataset))["counts"]
        return {name: counts[name]["total"] for name in SPLITS}

    def _copies(self, dataset: str, least: int) -> list[tuple[Paths, dict[str, int]]]:
        """The two copies and how many images of each split they get, `least` or more where there are as many."""
        counts = self.counts[dataset]
        share = min(1.0, max(TRAIN, 2 * self.params.pretrain.batch_size, RATIO * least) / counts["train"])
        return [
            (copy, {name: min(total, max(least, round(total * part))) for name, total in counts.items()})
            for copy, part in ((self.small, share / RATIO), (self.large, share))
        ]

    def _copy(self, dataset: str, to: Paths, counts: dict[str, int]) -> None:
        """The first images of each split, which are a fair sample: a split's order is random."""
        manifest = json.loads(self.paths.manifest(dataset).read_text(encoding="utf-8"))
        stored = prepare.stored(self.params.datasets[dataset])
        for name in SPLITS:
            beton = Beton(self.paths.beton(dataset, name))
            images = [beton[i] for i in range(counts[name])]
            write_beton(to.beton(dataset, name), images, beton.labels[: len(images)], **stored)
            manifest["counts"][name]["total"] = len(images)
            if several := manifest.get("several_labels"):
                several[name] = several[name][: len(images)]
        write_json(to.manifest(dataset), manifest)


def _shortened(settings: Frozen, steps: int) -> Any:
    """The settings with every grid's trainings cut to one length."""
    grids = {key: grid.model_copy(update={"steps": [steps]}) for key, grid in settings if isinstance(grid, Grid)}
    return settings.model_copy(update=grids)


def _as_limits(counts: dict[str, int]) -> dict[str, int]:
    return {f"{name}_limit": total for name, total in counts.items()}
