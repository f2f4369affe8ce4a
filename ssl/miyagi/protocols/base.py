"""What the protocols on frozen features share: the bank they read, the outcomes they return, honest selection.

A protocol's module has a `class Settings` and `evaluate(bank, settings, seed) -> list[Outcome]`. The stage turns
outcomes into stamped rows; neither the stage nor the report knows a protocol by name.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from miyagi.errors import UserError, did_you_mean


class DoesNotApply(Exception):
    """A protocol has nothing to measure on a data set, and why; it is still evaluated on the others."""


class Features(NamedTuple):
    """One split of one layer: x N x D float32, y N int64 (or N x C uint8, where an image has several labels)."""

    x: NDArray[np.float32]
    y: NDArray[Any]


class Linear(NamedTuple):
    """W (C x D), b (C), and which label each row of W stands for."""

    weight: NDArray[Any]
    bias: NDArray[Any]
    classes: NDArray[np.int64]

    def labels(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """The label with the largest score, N; the first of equals."""
        found: NDArray[np.int64] = self.classes[(x @ self.weight.T + self.bias).argmax(1)]
        return found


class Fitted(NamedTuple):
    """A classifier, and how its hyper-parameters were found.

    Attributes:
        predict: N x D features to N labels.
        chosen: the hyper-parameters' values.
        selection: the rule, as a row states it, e.g. "c chosen on val".
        linear: the same classifier as one linear layer on the features, where it is one.
    """

    predict: Callable[[NDArray[np.float32]], NDArray[np.int64]]
    chosen: dict[str, Any]
    selection: str
    linear: Linear | None = None


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
        condition: what the protocol varied inside one run, e.g. {"fraction": 0.01, "labels": 100}; see rows.py.
        draw: which repetition under the same condition, where there are several (or could be).
        higher_is_better: False for an error.
        span: value and interval of a metric that is no mean of `scores` (AUROC, mAP); see metrics/bootstrap.py.
        redrawn: the numbers behind that interval, by which two encoders are paired.
        n: how many units `span` was taken over.
        dimensions: of the features, where `layer` is none of the bank's.
    """

    layer: str
    split: str
    metric: str
    scores: NDArray[np.float64]
    selection: str
    chosen: dict[str, Any] = field(default_factory=dict)
    unit: str = "images"
    predicted: NDArray[np.int64] | None = None
    condition: dict[str, Any] = field(default_factory=dict)
    draw: int | None = None
    higher_is_better: bool = True
    span: tuple[float, float, float] | None = None
    redrawn: NDArray[np.float32] | None = None
    n: int | None = None
    dimensions: int | None = None


class Bank:
    """The frozen features that the embed stage wrote for one encoder and one data set.

    Attributes:
        stamp: what the embed stage says of it: data set, data digest, threads, the data set pretrained on, and which of
            its classes that one's training images had as well (`seen`).
        others: the same encoder's banks of the other data sets, by their names.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.others: dict[str, Bank] = {}
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

    @property
    def transforms(self) -> dict[str, list[str]]:
        """The transformations of which the bank holds copies, and their copies: {"rotation": ["rotation1", ...]}."""
        copies = sorted({name.split("~")[1].split(".")[0] for name in self.names if "~" in name})
        names = sorted({copy.rstrip("0123456789") for copy in copies})
        return {name: [copy for copy in copies if copy.rstrip("0123456789") == name] for name in names}

    def width(self, layer: str) -> int:
        """The dimensions of one layer, without reading it."""
        width: int = self._open.get_slice(f"train.{layer}").get_shape()[1]
        return width

    def labels(self, split: str) -> NDArray[Any]:
        """The labels of one split; see `Features`."""
        labels: NDArray[Any] = self._open.get_tensor(f"{split}.labels")
        return labels

    def features(self, split: str, layer: str) -> NDArray[np.float32]:
        """One layer of one split, N x D; a split of transformed images is called "<split>~<copy>".

        Raises:
            UserError: the bank has no such layer.
        """
        if f"{split}.{layer}" not in self.names:
            raise UserError(f"{self.file} has no layer '{layer}'; {did_you_mean(layer, self.layers)}")
        x: NDArray[np.float32] = self._open.get_tensor(f"{split}.{layer}")
        return x

    def split(self, split: str, layer: str) -> Features:
        """One layer of one split with its labels; see `features`."""
        return Features(self.features(split, layer), self.labels(split))


class Labelled(Protocol):
    """Anything that has splits with labels."""

    def labels(self, split: str) -> NDArray[Any]: ...


def check_classes(bank: Labelled) -> None:
    """Raise DoesNotApply where no classifier that was fitted to the training labels could be right."""
    train = bank.labels("train")
    if train.ndim == 2:
        raise DoesNotApply("an image has several labels")
    if (train == train[0]).all():
        raise DoesNotApply("its images have no labels to tell apart")
    for split in ("val", "test"):
        if not np.isin(bank.labels(split), train).any():
            raise DoesNotApply(f"none of its {split} classes is among its training classes")


def classify(bank: Bank, layers: Sequence[str], fit: Fit, condition: dict[str, Any] | None = None) -> list[Outcome]:
    """Top-1 accuracy, in percent, of a classifier fitted to each layer, on the validation and the test split.

    `fit` is given the training and the validation split; the test split is read after it has returned, once. So no
    choice can see it.

    Raises:
        DoesNotApply: see `check_classes`.
    """
    check_classes(bank)
    found = []
    for layer in layers:
        fitted = fit(bank.split("train", layer), bank.split("val", layer))
        for split in ("val", "test"):
            x, y = bank.split(split, layer)
            predicted = fitted.predict(x)
            found.append(
                Outcome(
                    layer, split, "top1", 100.0 * (predicted == y), fitted.selection, fitted.chosen,
                    predicted=predicted, condition=condition or {},
                )
            )  # fmt: skip
    return found


def best_on_val(candidates: Sequence[Any], accuracy: Callable[[Any], float], on: str = "val") -> tuple[Any, str]:
    """The candidate with the best validation accuracy (the first of equals), and the rule as a row states it."""
    if len(candidates) == 1:
        return candidates[0], "fixed"
    return max(candidates, key=accuracy), f"best of {len(candidates)} on {on}"
