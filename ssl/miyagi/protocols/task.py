"""What a protocol that trains or attacks an encoder is given: the encoder, as often as asked, and one data set.

Such a protocol's module has a `class Settings(FinetuneSettings)` and `evaluate(task, settings, seed) -> list[Outcome]`.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from miyagi.data.decode import Beton
from miyagi.data.loader import Loader
from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.rng import fold
from miyagi.nn.encoders import base as encoders
from miyagi.nn.encoders.base import Encoder
from miyagi.paths import Paths
from miyagi.protocols.base import DoesNotApply, check_classes
from miyagi.settings import Experiment
from miyagi.train.weights import load_module

BATCH = 500
"""Images a batch where nothing is trained."""


@dataclass(frozen=True)
class Task:
    """One experiment's encoder and one data set.

    Attributes:
        experiment: its total description.
        weights: the file of its encoder.
        dataset: the data set's key.
        device: where to work.
        paths: the project's files.
    """

    experiment: Experiment
    weights: Path
    dataset: str
    device: torch.device
    paths: Paths

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.paths.manifest(self.dataset))

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.manifest["classes"]]

    @property
    def size(self) -> int:
        """Side of the images that an encoder is shown, in pixels."""
        size: int = self.manifest["size"]
        return size

    @property
    def pretrained(self) -> bool:
        """Whether the encoder has learnt anything; fine-tuning one that has not is training from scratch."""
        return self.experiment.pretrain is not None

    @property
    def precision(self) -> str:
        return self.experiment.runtime.precision

    @property
    def annotated(self) -> bool:
        """Whether the data set has boxes, masks or normals in place of labels."""
        return "kinds" in self.manifest

    @property
    def key(self) -> str:
        """Where the data set stands in params.yaml."""
        return f"{'dense.' * self.annotated}datasets.{self.dataset}"

    def check(self) -> None:
        """Raise DoesNotApply where images have labels and no classifier could be right on them."""
        if self.annotated:
            return
        if self.manifest.get("several_labels"):
            raise DoesNotApply("an image has several labels")
        check_classes(self)

    def encoder(self) -> Encoder:
        """The experiment's encoder as pretraining left it, in eval mode; each call gives a copy of its own.

        Raises:
            UserError: the file is broken, or the data set's images are smaller than the encoder can take.
        """
        trained_on = data_info(read_manifest(self.paths.manifest(self.experiment.dataset)))
        encoder = self._build(trained_on.mean, trained_on.std)
        load_module(encoder, self.weights)
        return encoder.to(self.device)

    def scratch(self, seed: int) -> Encoder:
        """The same architecture in eval mode, newly initialised, with this data set's own normalisation."""
        torch.manual_seed(fold(seed, "init") >> 1)
        info = data_info(self.manifest)
        return self._build(info.mean, info.std).to(self.device)

    def start(self, seed: int) -> Encoder:
        """Where fine-tuning starts: `encoder`, or `scratch` where the experiment does not pretrain."""
        return self.encoder() if self.pretrained else self.scratch(seed)

    def loader(
        self,
        split: str,
        batch_size: int = BATCH,
        *,
        subset: NDArray[np.int64] | None = None,
        seed: int | None = None,
        limit: int | None = None,
    ) -> Loader:
        """Batches of one split.

        Args:
            split: train, val or test.
            batch_size: images a batch.
            subset: positions in the split; None: all.
            seed: of a random order without a smaller last batch, to train on; None: the order of the file.
            limit: only the first so many images of the order.
        """
        beton = self.paths.beton(self.dataset, split)
        return Loader(
            beton, batch_size, seed=seed, drop_last=seed is not None, subset=subset, limit=limit, size=self.size,
            workers=self.experiment.runtime.threads,
        )  # fmt: skip

    def labels(self, split: str) -> NDArray[np.int64]:
        """The labels of one split, in the order of the file."""
        labels: NDArray[np.int64] = Beton(self.paths.beton(self.dataset, split)).labels
        return labels

    def width(self, layer: str) -> int:
        """The dimensions of a layer; a classifier stands on `encoder`, what `forward` gives."""
        if layer != "encoder":
            raise ValueError(f"no classifier stands on {layer}")
        return self.encoder().dim

    def _build(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Encoder:
        encoder = encoders.build(self.experiment.encoder, mean, std)
        place = f"{self.key}.{'shorter_side' if self.annotated else 'size'}"
        encoders.check_size(encoder, self.experiment.encoder["name"], self.size, place)
        return encoder.eval()
