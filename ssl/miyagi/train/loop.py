"""The training loop: one method, one loader, one schedule. It knows no method by name."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from miyagi.data.augment import augment_views, crop_boxes
from miyagi.data.batch import Batch, View
from miyagi.data.loader import Cut, Loader, Raw
from miyagi.data.rng import Key, fold
from miyagi.errors import UserError
from miyagi.methods.base import Method
from miyagi.settings import MethodSettings, Pretrain, ViewRecipe
from miyagi.train import checkpoint
from miyagi.train.distributed import ALONE, World
from miyagi.train.monitor import OnlineMonitor
from miyagi.train.optimizer import optimizer as optimizer  # where a caller of the loop looks for it
from miyagi.train.schedule import learning_rate
from miyagi.train.step import Step

Row = dict[str, float]
Wanted = tuple[str, ViewRecipe, int]
"""Name, recipe and size of a view."""


def wanted(views: Sequence[View], recipes: list[ViewRecipe], size: int) -> list[Wanted]:
    """The views that a method asks for; where it does not say how large, they have the stored `size`."""
    return [
        (view.name, ViewRecipe() if view.recipe is None else recipes[view.recipe % len(recipes)], view.size or size)
        for view in views
    ]


def augmented(raw: Raw, key: Key, views: list[Wanted]) -> Batch:
    """A method's batch of decoded images, which the decoder has cut already where they were no equal squares."""
    images = raw.views or [raw.image] * len(views)
    made = augment_views(images, raw.index, key, views, cropped=bool(raw.views))
    return Batch(made, raw.index, raw.label, key)


class Diverged(UserError):
    """The loss is no longer finite."""


class Trainer:
    """Trains `method`; what it holds is exactly what a checkpoint holds.

    Args:
        method: on its device, with its encoder.
        loader: the training split, or this process's share of it.
        recipes: the experiment's view recipes, taken in turn by `View.recipe`.
        settings: the optimisation.
        size: side of the stored images, in pixels.
        seed: of order, augmentation and whatever the method draws.
        precision, compile, world: see `Step`.
    """

    def __init__(
        self,
        method: Method[MethodSettings],
        loader: Loader,
        recipes: list[ViewRecipe],
        settings: Pretrain,
        *,
        size: int,
        seed: int,
        precision: str = "fp32",
        compile: bool = False,
        world: World = ALONE,
    ) -> None:
        self.method = method
        self.loader = loader
        self.recipes = recipes
        self.settings = settings
        self.size = size
        self.seed = seed
        self.world = world
        self.device = method.encoder.mean.device
        self.step = Step(method, settings, precision=precision, compile=compile, world=world)
        self.optimizer = self.step.optimizer
        self.epoch = 0
        self.history: list[Row] = []

    def batches(self, epoch: int, loader: Loader | None = None, views: Sequence[View] | None = None) -> Iterator[Batch]:
        """The augmented batches of one epoch, of the training's loader or another, of the method's views or others."""
        key = Key(self.seed, epoch)
        made = wanted(self.method.views if views is None else views, self.recipes, self.size)
        cuts = [Cut(size, partial(crop_boxes, recipe, key=key, view=name)) for name, recipe, size in made]
        for raw in (loader or self.loader)(epoch, cuts):
            yield augmented(raw.to(self.device), key, made)

    def before_epoch(self, epoch: int) -> None:
        """Let the method do what needs a pass over the data first; the pass is made as far as it asks for it."""
        self.method.before_epoch(epoch, self.batches(epoch, views=self.method.views_before))

    def fit(
        self,
        scratch: Path,
        monitor: OnlineMonitor | None = None,
        on_epoch: Callable[[Row, float], None] = lambda row, rate: None,
    ) -> list[Row]:
        """Train to the end, from the last whole epoch found in `scratch`.

        Args:
            scratch: where a state is kept after each epoch.
            monitor: what looks at the encoder after each epoch.
            on_epoch: called with the epoch's row and its samples/s.

        Returns:
            A row an epoch: epoch (from 1), lr, the means of what the method logged, and the monitor's figures. Fewer
            than `settings.epochs` where `settings.stop_on_collapse` ended it.

        Raises:
            Diverged: the loss is no longer finite.
        """
        state = checkpoint.load(scratch)
        if state is not None:
            self.load_state(state)
            if self.world.rank == 0:
                print(f"resuming after epoch {self.epoch} of {self.settings.epochs}", file=sys.stderr)
        while self.epoch < self.settings.epochs and not self.world.told(self.world.rank == 0 and self._collapsed()):
            start = time.perf_counter()
            row = self._train_epoch(self.epoch)
            rate = self.loader.images * self.world.size / (time.perf_counter() - start)
            self.epoch += 1
            if monitor is not None:
                row |= monitor(self.method.downstream()[0], self.epoch, self.epoch == self.settings.epochs)
            self.history.append(row)
            if self.world.rank == 0:
                checkpoint.save(scratch, self.state())
                on_epoch(row, rate)
            self.world.wait()
        return self.history

    def _collapsed(self) -> bool:
        """Whether the training should end here; what it trained is kept, for the report to show it as it is."""
        if not (self.settings.stop_on_collapse and self.history and self.history[-1].get("collapsed")):
            return False
        print(
            f"stopped after epoch {self.epoch} of {self.settings.epochs}: the embedding has collapsed "
            "(pretrain.stop_on_collapse)",
            file=sys.stderr,
        )
        return True

    def _train_epoch(self, epoch: int) -> Row:
        # A resumed epoch starts from the same generator as an uninterrupted one, whatever the method draws from it.
        torch.manual_seed(fold(self.seed, epoch, "method") >> 1)
        self.method.train()
        self.before_epoch(epoch)
        sums: dict[str, torch.Tensor] = {}
        parts = self.settings.accumulate
        seen, steps, rate = 0, len(self.loader) // parts, 0.0
        knn = self.history[-1].get("knn") if self.history else None
        bar = tqdm(
            total=self.loader.images,
            unit="img",
            desc=f"epoch {epoch + 1}/{self.settings.epochs}",
            mininterval=0.5,
            disable=True if self.world.rank else None,
            leave=False,
        )
        batches = self.batches(epoch)
        with bar:
            for step in range(steps):
                progress = (epoch * steps + step) / (self.settings.epochs * steps)
                rate = learning_rate(self.settings, progress + 0.5 / (self.settings.epochs * steps))
                for images, logged in self.step(islice(batches, parts), progress, rate):
                    for name, value in logged.items():
                        sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value * images
                    seen += images
                    bar.update(images)
                if not bar.disable and step % 10 == 0:
                    shown = {"loss": f"{float(logged['loss']):.3f}"} | ({"kNN": f"{knn:.1f} %"} if knn else {})
                    bar.set_postfix(shown)
        means = self._means(sums, seen)
        if not math.isfinite(means["loss"]):
            raise Diverged(
                f"the loss is {means['loss']} in epoch {epoch + 1}: lower pretrain.lr (now {self.settings.lr}) "
                "or raise the method's temperature"
            )
        return {"epoch": epoch + 1, "lr": rate, **means}

    def _means(self, sums: dict[str, torch.Tensor], seen: int) -> Row:
        values = [value.double() for value in (*sums.values(), torch.tensor(seen, device=self.device))]
        totals = self.world.total(torch.stack(values)).tolist()
        return {name: total / totals[-1] for name, total in zip(sums, totals, strict=False)}

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "epoch": self.epoch,
            "history": self.history,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a state of the same fingerprint."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step.scaler.load_state_dict(state["scaler"])
        self.epoch = state["epoch"]
        self.history = state["history"]
