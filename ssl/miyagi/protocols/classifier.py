"""A classifier on an encoder, trained on augmented images; its learning rate and its length are chosen on validation.

    L = mean_i -log softmax(W f(t(x_i)) + b)[y_i]

Fine-tuning trains f as well, BatchNorm included; on a frozen f only W and b move and BatchNorm keeps its statistics.
Then the learning rates that are tried share each forward pass, as many heads on one encoder.
"""

import copy
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.augment import augment, crop_boxes
from miyagi.data.loader import Cut, Loader
from miyagi.data.rng import Key, fold
from miyagi.errors import UserError
from miyagi.nn.encoders.base import Encoder
from miyagi.params import views
from miyagi.progress import progress
from miyagi.protocols import descent, linear_fits
from miyagi.protocols.base import Features, Fitted, Outcome
from miyagi.protocols.task import Task
from miyagi.settings import Grid, Optimization, ViewRecipe
from miyagi.train.features import features

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """An encoder and a linear layer, and how they were found.

    Attributes:
        encoder: in eval mode.
        head: D -> classes.
        accuracy: on the images that chose, in [0, 1].
        chosen: lr, steps (the schedule's length), stop (the step that was best) and start (pretrained or scratch).
        selection: the rule, as a row states it.
    """

    encoder: Encoder
    head: nn.Linear
    accuracy: float
    chosen: dict[str, Any]
    selection: str = "fixed"

    def predict(self, loader: Loader) -> tuple[Labels, Labels]:
        """The predicted and the true label of each image, in the loader's order."""
        x, y = features(self.encoder, loader())
        labels: Labels = _scores(self.head, torch.from_numpy(x)).argmax(1).numpy()
        return labels, y


class Classifier(Protocol):
    """Anything that was chosen on validation and predicts labels."""

    @property
    def chosen(self) -> dict[str, Any]: ...
    @property
    def selection(self) -> str: ...
    def predict(self, loader: Loader) -> tuple[Labels, Labels]: ...


@dataclass(frozen=True)
class Probe:
    """A classifier that was fitted to frozen features (protocols/linear_fits.py), on its encoder."""

    encoder: Encoder
    fitted: Fitted

    @classmethod
    def logistic(cls, task: Task, c: list[float]) -> "Probe":
        """Logistic regression on clean, unaugmented images; C is chosen on validation."""
        encoder = task.encoder()
        train, val = (Features(*features(encoder, task.loader(split)())) for split in ("train", "val"))
        return cls(encoder, linear_fits.logistic(train, val, c))

    @property
    def chosen(self) -> dict[str, Any]:
        return self.fitted.chosen

    @property
    def selection(self) -> str:
        return self.fitted.selection

    def predict(self, loader: Loader) -> tuple[Labels, Labels]:
        """See `Trained`."""
        x, y = features(self.encoder, loader())
        return self.fitted.predict(x), y


@dataclass(frozen=True)
class Trainer:
    """Trains classifiers on one data set.

    Attributes:
        task: the experiment's encoder and the data set.
        protocol: whose settings these are, for error messages.
        how: the optimisation.
        seed: of an encoder from scratch.
        draw: of the head's initialisation, the order and the augmentation.
        frozen: whether only the head is trained.
    """

    task: Task
    protocol: str
    how: Optimization
    seed: int
    draw: int
    frozen: bool = False

    @cached_property
    def view(self) -> ViewRecipe:
        """The augmentation."""
        return views(self.how.recipe, self.how.augment, f"evaluate.{self.protocol}.optimization")[0]

    def train_loader(self, subset: Labels | None = None) -> Loader:
        """The training images, or those of the positions `subset`, in an order of this draw's own."""
        return self.task.loader("train", self.how.batch_size, subset=subset, seed=fold(self.draw, "order"))

    def fit(self, train: Loader, val: Loader, grid: Grid, key: str) -> Trained:
        """Try the whole grid and keep what is best on `val`, the first of equals.

        Args:
            train: in random order.
            val: the images that choose; they are not trained on.
            grid: learning rates and lengths.
            key: where the grid stands in params.yaml, for error messages.

        Raises:
            UserError: every learning rate diverged.
        """
        if max(grid.steps) * self.how.batch_size < train.images:
            print(
                f"miyagi: note: {key}.steps: {max(grid.steps)} steps of {self.how.batch_size} images are less than one "
                f"epoch of the {train.images} that there are; add more steps",
                file=sys.stderr,
            )
        # One by one where the encoder moves, side by side where it does not.
        rates = [grid.lr] if self.frozen else [[lr] for lr in grid.lr]
        best: Trained | None = None
        for steps, lrs in itertools.product(grid.steps, rates):
            found = self.train(train, val, lrs, steps)
            if found is not None and (best is None or found.accuracy > best.accuracy):
                best = found
        if best is None:
            raise UserError(f"{key}.lr: training diverged at every learning rate of {grid.lr}; add lower ones")
        tried = len(grid.lr) * len(grid.steps) * self.how.looks
        rule = "fixed" if tried == 1 else f"best of {tried} on val"
        return replace(best, selection=f"lr, steps and stop {rule}")

    def again(self, train: Loader, tried: Trained) -> Trained:
        """Train on other images what `fit` has chosen, to the step where that was best.

        Raises:
            UserError: on these images the chosen learning rate diverges.
        """
        chosen = tried.chosen
        found = self.train(train, None, [chosen["lr"]], chosen["steps"], chosen["stop"])
        if found is None:
            raise UserError(
                f"evaluate.{self.protocol}: training diverged at the chosen learning rate {chosen['lr']} on all of the "
                "labels; leave it out of the grid"
            )
        return replace(found, accuracy=tried.accuracy, selection=tried.selection)

    def train(
        self, train: Loader, val: Loader | None, lrs: list[float], steps: int, stop: int | None = None
    ) -> Trained | None:
        """One training; the learning rate and the look that are best on `val`, None where no look gives numbers.

        Args:
            train: in random order.
            val: what chooses; None: the last step's state of the only learning rate is kept.
            lrs: peak learning rates; several on a frozen encoder only.
            steps: the schedule's length.
            stop: the last step that is taken; None: all of them.
        """
        encoder = self.task.encoder() if self.frozen else self.task.start(self.seed)
        encoder.train(not self.frozen).requires_grad_(not self.frozen)
        device = encoder.mean.device
        torch.manual_seed(fold(self.draw, "head") >> 1)
        first = nn.Linear(encoder.dim, len(self.task.classes))
        nn.init.normal_(first.weight, std=0.01)
        nn.init.zeros_(first.bias)
        heads = [copy.deepcopy(first).to(device) for _ in lrs]
        moved = [] if self.frozen else [(encoder, lrs[0])]
        optimizer = descent.optimizer(self.how, [*zip(heads, lrs, strict=True), *moved])
        looks = {round(steps * (i + 1) / self.how.looks) for i in range(self.how.looks)}
        known = features(encoder, val()) if val is not None and self.frozen else None
        best: Trained | None = None
        batches = itertools.islice(self._batches(train, device), stop or steps)
        what = f"{self.protocol} on {self.task.dataset}, {'head' if self.frozen else 'encoder and head'}"
        for step, (x, y) in enumerate(progress(batches, stop or steps, what, "steps"), 1):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * descent.share(self.how, (step - 0.5) / steps)
            # bf16 for fp16 too: it needs no gradient scaler, and these trainings are short.
            with torch.autocast(device.type, torch.bfloat16, enabled=self.task.precision != "fp32"):
                z = encoder(x)
                loss = torch.stack([F.cross_entropy(head(z), y) for head in heads]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if val is not None and step in looks:
                z_val, y_val = known or features(encoder, val())
                for head, lr in zip(heads, lrs, strict=True):
                    scores = _scores(head, torch.from_numpy(z_val))
                    if not torch.isfinite(scores).all():
                        continue  # it diverged, and would be right on every image of the first class
                    accuracy = float((scores.argmax(1).numpy() == y_val).mean())
                    if best is None or accuracy > best.accuracy:
                        best = self._kept(encoder, head, accuracy, {"lr": lr, "steps": steps, "stop": step})
        if val is not None or not all(torch.isfinite(p).all() for p in (*encoder.parameters(), heads[0].weight)):
            return best
        return self._kept(encoder, heads[0], math.nan, {"lr": lrs[0], "steps": steps, "stop": stop or steps})

    def _kept(self, encoder: Encoder, head: nn.Linear, accuracy: float, chosen: dict[str, Any]) -> Trained:
        """A state as it is now."""
        own = encoder if self.frozen else copy.deepcopy(encoder)
        start = "pretrained" if self.task.pretrained else "scratch"
        return Trained(own.eval(), copy.deepcopy(head), accuracy, {**chosen, "start": start})

    def _batches(self, loader: Loader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for epoch in itertools.count():
            key, size = Key(self.draw, epoch), self.task.size
            cut = Cut(size, partial(crop_boxes, self.view, key=key, view="classifier"))
            for raw in loader(epoch, [cut]):
                raw = raw.to(device)
                cropped = bool(raw.views)  # by the decoder, where the images are no equal squares
                yield augment(raw.image, raw.index, key, "classifier", self.view, size, cropped=cropped), raw.label


def outcomes(task: Task, classifier: Classifier, condition: dict[str, Any], draw: int | None = None) -> list[Outcome]:
    """Top-1 accuracy, in percent, on the validation and the test split.

    This is where the test split is read: once, after everything about `classifier` has been chosen.
    """
    found = []
    for split in ("val", "test"):
        predicted, y = classifier.predict(task.loader(split))
        scores = 100.0 * (predicted == y)
        found.append(
            Outcome(
                "encoder", split, "top1", scores, classifier.selection, classifier.chosen,
                predicted=predicted, condition=condition, draw=draw,
            )
        )  # fmt: skip
    return found


@torch.inference_mode()
def _scores(head: nn.Linear, x: Tensor) -> Tensor:
    """N x classes, on the CPU."""
    scores: Tensor = head(x.to(head.weight.device)).cpu()
    return scores
