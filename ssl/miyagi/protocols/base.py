"""What the protocols on frozen features share: the bank they read, the outcomes they return, honest selection.

A protocol's module has a `class Settings` and `evaluate(bank, settings, seed) -> list[Outcome]`. The stage turns
outcomes into stamped rows; neither the stage nor the report knows a protocol by name.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from miyagi.errors import UserError, did_you_mean


class Features(NamedTuple):
    """One split of one layer: x N x D float32, y N int64."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


class Fitted(NamedTuple):
    """A classifier, and how its hyper-parameters were found.

    Attributes:
        predict: N x D features to N labels.
        chosen: the hyper-parameters' values.
        selection: the rule, as a row states it, e.g. "c chosen on val".
    """

    predict: Callable[[NDArray[np.float32]], NDArray[np.int64]]
    chosen: dict[str, Any]
    selection: str


Fit = Callable[[Features, Features], Fitted]


@dataclass(frozen=True)
class Outcome:
    """One measured number, as the mean of one score a unit.

    Attributes:
        layer, split, metric: what was measured where.
        scores: one number an image (or episode); their mean is the value, their spread gives the interval.
        selection, chosen: see `Fitted`.
        unit: what a score belongs to, e.g. "images".
        predicted: the predicted label of each image, where there is one.
    """

    layer: str
    split: str
    metric: str
    scores: NDArray[np.float64]
    selection: str
    chosen: dict[str, Any] = field(default_factory=dict)
    unit: str = "images"
    predicted: NDArray[np.int64] | None = None


class Bank:
    """The frozen features that the embed stage wrote for one encoder and one data set.

    Attributes:
        stamp: what the embed stage says of it: data set, data digest, threads.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._open = safe_open(str(file), framework="numpy")
            self.stamp: dict[str, Any] = json.loads((self._open.metadata() or {})["miyagi"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(f"cannot read the features {file}: {error}; delete it and run `dvc repro`") from error
        self.names = set(self._open.keys())

    @property
    def layers(self) -> list[str]:
        """The layers in the bank, `encoder` (what `forward` gives) and `head` (its output) among them."""
        return sorted(
            name.removeprefix("train.") for name in self.names - {"train.labels"} if name.startswith("train.")
        )

    def split(self, split: str, layer: str) -> Features:
        """One split of one layer.

        Raises:
            UserError: the bank has no such layer.
        """
        if f"{split}.{layer}" not in self.names:
            raise UserError(f"{self.file} has no layer '{layer}'; {did_you_mean(layer, self.layers)}")
        return Features(self._open.get_tensor(f"{split}.{layer}"), self._open.get_tensor(f"{split}.labels"))


def classify(bank: Bank, layers: Sequence[str], fit: Fit) -> list[Outcome]:
    """Top-1 accuracy, in percent, of a classifier fitted to each layer, on the validation and the test split.

    `fit` is given the training and the validation split; the test split is read after it has returned, once. So no
    choice can see it.
    """
    found = []
    for layer in layers:
        fitted = fit(bank.split("train", layer), bank.split("val", layer))
        for split in ("val", "test"):
            x, y = bank.split(split, layer)
            predicted = fitted.predict(x)
            scores = 100.0 * (predicted == y)
            found.append(Outcome(layer, split, "top1", scores, fitted.selection, fitted.chosen, predicted=predicted))
    return found


def best_on_val(candidates: Sequence[Any], accuracy: Callable[[Any], float]) -> tuple[Any, str]:
    """The candidate with the best validation accuracy (the first of equals), and the rule as a row states it."""
    if len(candidates) == 1:
        return candidates[0], "fixed"
    return max(candidates, key=accuracy), f"best of {len(candidates)} on val"
