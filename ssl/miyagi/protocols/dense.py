"""What the protocols on annotated pictures share: pictures in batches, and a training chosen on validation.

Such a protocol's module has a `class Settings(DenseSettings)` and `evaluate(task, settings, seed) -> list[Outcome]`.
The encoder is trained with what stands on it, BatchNorm included, from where pretraining left it; an experiment that
does not pretrain (the floor `random`) starts from its own initialisation, with the grid `scratch` (docs/adr/0007).
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from miyagi.data.annotations import Annotations
from miyagi.data.decode import Beton
from miyagi.data.rng import Key, fold, permutation, uniform
from miyagi.errors import UserError
from miyagi.metrics.bootstrap import Floats, weighted
from miyagi.nn.encoders.base import Encoder
from miyagi.progress import progress
from miyagi.protocols import descent
from miyagi.protocols.base import DoesNotApply, Outcome
from miyagi.protocols.task import Task
from miyagi.settings import DenseSettings

BATCH = 16
"""Pictures at a time where nothing is trained."""


class Pictures:
    """The pictures of one split and what is known of them, one at a time; mirrored where `flip` is true.

    Args:
        beton: the pictures.
        annotations: the file beside it.
    """

    def __init__(self, beton: Path, annotations: Path) -> None:
        self._beton, self._known = Beton(beton), Annotations(annotations)
        if len(self._beton) != len(self._known):
            raise UserError(f"{beton} and {annotations.name} are of different runs; run `dvc repro`")

    def __len__(self) -> int:
        return len(self._beton)

    def alike(self, most: int) -> Iterator[list[int]]:
        """All positions in order, in lists of at most `most` neighbours of one size: no padding, whatever the order."""
        for _, group in itertools.groupby(range(len(self)), key=lambda i: tuple(self._known.sizes[i])):
            found = list(group)
            yield from (found[start : start + most] for start in range(0, len(found), most))

    def image(self, position: int, flip: bool = False) -> Tensor:
        """3 x H x W float32 in [0, 1]."""
        return _tensor(self._beton[position], flip).permute(2, 0, 1).to(torch.float32) / 255

    def mask(self, position: int, flip: bool = False) -> Tensor:
        """H x W int64; data.scene.IGNORED where a pixel does not count."""
        return _tensor(self._known.map("masks", position), flip).to(torch.int64)

    def normals(self, position: int, flip: bool = False) -> Tensor:
        """3 x H x W float32 of length 1; 0 where none is known. Mirrored, x points the other way as well."""
        stored = _tensor(self._known.map("normals", position), flip).permute(2, 0, 1)
        vectors = stored / 127.5 - 1
        if flip:
            vectors[0] = -vectors[0]
        length = vectors.norm(dim=0, keepdim=True).clamp(min=1e-6)
        return torch.where((stored == 0).all(0, keepdim=True), 0.0, vectors / length)

    def objects(self, position: int, flip: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (M x 4 float32: x1, y1, x2, y2), labels (M int64), whether they are difficult (M bool)."""
        boxes, labels, difficult = (torch.from_numpy(np.array(each)) for each in self._known.objects(position))
        if flip:
            width = int(self._known.sizes[position, 1])
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        return boxes, labels, difficult


def _tensor(pixels: NDArray[Any], flip: bool) -> Tensor:
    return torch.from_numpy(np.array(pixels[:, ::-1] if flip else pixels))


def pictures(task: Task, split: str) -> Pictures:
    """One split of the task's data set."""
    return Pictures(task.paths.beton(task.dataset, split), task.paths.annotations(task.dataset, split))


@torch.inference_mode()
def predicted(model: nn.Module, source: Pictures) -> Iterator[tuple[int, Tensor]]:
    """Each position and what a model gives for its picture alone, C x H x W on the CPU; the model is in eval mode."""
    device = next(model.parameters()).device
    for rows in source.alike(BATCH):
        x = torch.stack([source.image(row) for row in rows]).to(device)
        yield from zip(rows, model(x).float().cpu(), strict=True)


def outcome(
    split: str,
    metric: str,
    tuned: "Tuned",
    statistic: Callable[[Floats], Floats],
    scores: Floats,
    *,
    draws: int = 2000,
    higher_is_better: bool = True,
) -> Outcome:
    """A metric over a whole split, with its bootstrap interval over pictures.

    Args:
        split, metric: what was measured where.
        tuned: the model that was chosen.
        statistic: R x N counts of the pictures to R values, see metrics/bootstrap.py.
        scores: N: each picture's own value, NaN where it has none.
        draws: of the bootstrap.
        higher_is_better: False for an error.
    """
    span, redrawn = weighted(statistic, [len(scores)], draws)
    return Outcome(
        "encoder", split, metric, scores, tuned.selection, tuned.chosen,
        span=span, redrawn=redrawn, n=len(scores), higher_is_better=higher_is_better,
    )  # fmt: skip


def require(task: Task, kind: str) -> list[str]:
    """The class names of the data set's `kind` ("boxes", "masks"); DoesNotApply where it has none of that kind."""
    kinds: dict[str, list[str]] = task.manifest.get("kinds", {})
    if kind not in kinds:
        raise DoesNotApply(f"it has no {kind}")
    return kinds[kind]


def check_splits(task: Task, scored: Callable[[Pictures, int], bool], what: str) -> None:
    """Raise DoesNotApply, before anything is trained, where a split has nothing that a score could be taken over.

    Args:
        task: the data set.
        scored: a split's pictures and a position -> whether that picture has anything.
        what: is lacking, e.g. "object that is not difficult".
    """
    for split in ("val", "test"):
        source = pictures(task, split)
        if not any(scored(source, row) for row in range(len(source))):
            raise DoesNotApply(f"its {split} split has no {what}")


def batch(read: Callable[[int, bool], Tensor], rows: list[int], flips: list[bool], fill: float) -> Tensor:
    """What `read` gives (... x H x W) as one tensor, filled up at the right and at the bottom where sizes differ.

    Args:
        read: `Pictures.image`, `mask` or `normals`.
        rows, flips: positions, and which of them are mirrored.
        fill: the value of what is added.
    """
    parts = [read(row, flip) for row, flip in zip(rows, flips, strict=True)]
    height, width = (max(part.shape[axis] for part in parts) for axis in (-2, -1))

    def padded(part: Tensor) -> Tensor:
        return nn.functional.pad(part, (0, width - part.shape[-1], 0, height - part.shape[-2]), value=fill)

    return torch.stack([padded(part) for part in parts])


class Problem(Protocol):
    """What is trained, and what is good.

    `score` looks at the validation split, with the model in eval mode; higher is better.
    """

    def build(self, encoder: Encoder) -> nn.Module: ...
    def loss(self, model: nn.Module, train: Pictures, rows: list[int], flips: list[bool]) -> Tensor: ...
    def score(self, model: nn.Module) -> float: ...


@dataclass(frozen=True)
class Tuned:
    """A model in eval mode, and how it was found; see protocols.classifier.Trained."""

    model: nn.Module
    score: float
    chosen: dict[str, Any]
    selection: str = "fixed"


@dataclass(frozen=True)
class Training:
    """Trains one problem on one data set.

    Attributes:
        task: the experiment's encoder and the data set.
        protocol: whose settings these are.
        problem: what is trained.
        settings: grids, optimisation, augmentation.
        seed: of an encoder from scratch, of what stands on it, of the order and of the augmentation.
    """

    task: Task
    protocol: str
    problem: Problem
    settings: DenseSettings
    seed: int

    def fit(self) -> Tuned:
        """Try the whole grid and keep what is best on validation, the first of equals.

        Raises:
            UserError: every learning rate diverged.
        """
        kind = "finetune" if self.task.pretrained else "scratch"
        grid = self.settings.finetune if self.task.pretrained else self.settings.scratch
        trained = [self._train(lr, steps) for steps, lr in itertools.product(grid.steps, grid.lr)]
        found = [tuned for tuned in trained if tuned is not None]
        if not found:
            key = f"evaluate.{self.protocol}.{kind}.lr"
            raise UserError(f"{key}: training diverged at every learning rate of {grid.lr}; add lower ones")
        tried = len(grid.lr) * len(grid.steps) * self.settings.optimization.looks
        rule = "fixed" if tried == 1 else f"best of {tried} on val"
        return replace(max(found, key=lambda tuned: tuned.score), selection=f"lr, steps and stop {rule}")

    def _train(self, lr: float, steps: int) -> Tuned | None:
        """The model at the look that is best; None where the loss is no number before the first."""
        how, draw = self.settings.optimization, fold(self.seed, self.protocol)
        encoder = self.task.start(self.seed)
        device = encoder.mean.device
        torch.manual_seed(fold(draw, "head") >> 1)
        model = self.problem.build(encoder).to(device)
        optimizer = descent.optimizer(how, [(model, lr)])
        looks = {round(steps * (i + 1) / how.looks) for i in range(how.looks)}
        train = pictures(self.task, "train")
        best: Tuned | None = None
        model.train().requires_grad_(True)
        batches = itertools.islice(self._batches(len(train), draw), steps)
        what = f"{self.protocol} on {self.task.dataset}, lr {lr:g}"
        for step, (rows, flips) in enumerate(progress(batches, steps, what, "steps"), 1):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * descent.share(how, (step - 0.5) / steps)
            # bf16 for fp16 too: it needs no gradient scaler, and these trainings are short.
            with torch.autocast(device.type, torch.bfloat16, enabled=self.task.precision != "fp32"):
                loss = self.problem.loss(model, train, rows, flips)
            if not math.isfinite(loss.item()):
                break
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step in looks:
                score = self.problem.score(model.eval())
                model.train()
                if best is None or score > best.score:
                    start = "pretrained" if self.task.pretrained else "scratch"
                    chosen = {"lr": lr, "steps": steps, "stop": step, "start": start}
                    best = Tuned(copy.deepcopy(model).eval(), score, chosen)
        return best

    def _batches(self, total: int, draw: int) -> Iterator[tuple[list[int], list[bool]]]:
        """Positions and which of them are mirrored, without a smaller last batch unless it is the only one."""
        size = min(self.settings.optimization.batch_size, total)
        for epoch in itertools.count():
            key = Key(draw, epoch)
            order = permutation(key, "order", total)
            flips = uniform(key, "flip", torch.from_numpy(order))[:, 0] < self.settings.flip
            for start in range(0, total - size + 1, size):
                part = slice(start, start + size)
                yield order[part].tolist(), flips[part].tolist()
