"""The training loop: one method, one loader, one schedule. It knows no method by name."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from miyagi.data.augment import augment
from miyagi.data.batch import Batch
from miyagi.data.loader import Loader, Raw
from miyagi.data.rng import Key, fold
from miyagi.errors import UserError
from miyagi.methods.base import Method
from miyagi.settings import MethodSettings, Pretrain, ViewRecipe
from miyagi.train import checkpoint
from miyagi.train.monitor import OnlineMonitor
from miyagi.train.schedule import learning_rate

Row = dict[str, float]


class Trainer:
    """Trains `method`; what it holds is exactly what a checkpoint holds.

    Args:
        method: on its device, with its encoder.
        loader: the training split.
        recipes: the experiment's view recipes, taken in turn by `View.recipe`.
        settings: the optimisation.
        size: side of the stored images, in pixels.
        seed: of order, augmentation and whatever the method draws.
        precision: "fp32", or "bf16" for autocast.
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
    ) -> None:
        self.method = method
        self.loader = loader
        self.recipes = recipes
        self.settings = settings
        self.size = size
        self.seed = seed
        self.precision = precision
        self.device = method.encoder.mean.device
        self.optimizer = optimizer(method, settings)
        self.epoch = 0
        self.history: list[Row] = []

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The augmented batches of one epoch."""
        key = Key(self.seed, epoch)
        for raw in self.loader(epoch):
            yield self._batch(raw.to(self.device), key)

    def _batch(self, raw: Raw, key: Key) -> Batch:
        views = [
            augment(raw.image, raw.index, key, view.name, self.recipes[view.recipe % len(self.recipes)],
                    view.size or self.size)
            for view in self.method.views
        ]  # fmt: skip
        return Batch(views, raw.index, raw.label, key)

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
            A row an epoch: epoch (from 1), lr, the means of what the method logged, and the monitor's figures.

        Raises:
            UserError: the loss is no longer finite.
        """
        state = checkpoint.load(scratch)
        if state is not None:
            self.load_state(state)
            print(f"resuming after epoch {self.epoch} of {self.settings.epochs}", file=sys.stderr)
        while self.epoch < self.settings.epochs:
            start = time.perf_counter()
            row = self._train_epoch(self.epoch)
            rate = self.loader.images / (time.perf_counter() - start)
            self.epoch += 1
            if monitor is not None:
                row |= monitor(self.method.encoder, self.epoch, self.epoch == self.settings.epochs)
            self.history.append(row)
            checkpoint.save(scratch, self.state())
            on_epoch(row, rate)
        return self.history

    def _train_epoch(self, epoch: int) -> Row:
        # A resumed epoch starts from the same generator as an uninterrupted one, whatever the method draws from it.
        torch.manual_seed(fold(self.seed, epoch, "method") >> 1)
        self.method.train()
        self.method.before_epoch(epoch, self.batches(epoch))
        sums: dict[str, torch.Tensor] = {}
        seen, steps, rate = 0, len(self.loader), 0.0
        knn = self.history[-1].get("knn") if self.history else None
        bar = tqdm(
            total=self.loader.images,
            unit="img",
            desc=f"epoch {epoch + 1}/{self.settings.epochs}",
            mininterval=0.5,
            disable=None,
            leave=False,
        )
        with bar:
            for step, batch in enumerate(self.batches(epoch)):
                progress = (epoch * steps + step) / (self.settings.epochs * steps)
                rate = learning_rate(self.settings, progress + 0.5 / (self.settings.epochs * steps))
                logged = self._step(batch, progress, rate)
                for name, value in logged.items():
                    sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach() * len(batch)
                seen += len(batch)
                bar.update(len(batch))
                if not bar.disable and step % 10 == 0:
                    shown = {"loss": f"{float(logged['loss']):.3f}"} | ({"kNN": f"{knn:.1f} %"} if knn else {})
                    bar.set_postfix(shown)
        means = {name: float(total) / seen for name, total in sums.items()}
        if not math.isfinite(means["loss"]):
            raise UserError(
                f"the loss is {means['loss']} in epoch {epoch + 1}: lower pretrain.lr (now {self.settings.lr}) "
                "or raise the method's temperature"
            )
        return {"epoch": epoch + 1, "lr": rate, **means}

    def _step(self, batch: Batch, progress: float, rate: float) -> dict[str, torch.Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logged = self.method(batch, progress)
        self.optimizer.zero_grad(set_to_none=True)
        logged["loss"].backward()
        self.method.after_backward(progress)
        self.optimizer.step()
        self.method.after_step(progress)
        found: dict[str, torch.Tensor] = logged
        return found

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "epoch": self.epoch,
            "history": self.history,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a state of the same fingerprint."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]
        self.history = state["history"]


def optimizer(method: Method[MethodSettings], settings: Pretrain) -> torch.optim.Optimizer:
    """The optimiser of a method's parameter groups; its learning rate is set at each step."""
    groups = [group for group in method.parameter_groups() if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, settings.lr, settings.momentum, weight_decay=settings.weight_decay, foreach=True)
    return torch.optim.AdamW(groups, settings.lr, weight_decay=settings.weight_decay, fused=True)
