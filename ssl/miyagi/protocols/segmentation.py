"""Semantic segmentation: an FCN on the encoder, all of it trained (Long, Shelhamer and Darrell, CVPR 2015).

    L = mean over pixels of -log softmax(y)[label],   y = FCN(x), see nn/fcn.py

Mean IoU and pixel accuracy are over all pixels of a split at the pictures' stored size; a pixel with the ignored label
has no part in the loss, nor in them. Learning rate, length and stop are chosen by the mean IoU on validation.
MoCo (He et al., CVPR 2020, appendix) trains an FCN of ResNet-50 on VOC's trainaug at 513 pixels: mIoU 72.5 from MoCo's
weights, 74.4 from ImageNet's labels, 39.5 from scratch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.scene import IGNORED
from miyagi.metrics.bootstrap import Floats
from miyagi.metrics.segmentation import confusion, mean_iou, pixel_accuracy
from miyagi.nn.encoders.base import Encoder
from miyagi.nn.fcn import FCN
from miyagi.protocols.base import Outcome
from miyagi.protocols.dense import Pictures, Training, batch, check_splits, outcome, pictures, predicted, require
from miyagi.protocols.task import Task
from miyagi.settings import DenseSettings

Metric = Callable[[NDArray[Any]], Floats]


class Settings(DenseSettings):
    """Settings of segmentation."""

    skips: int = Field(2, ge=0, description="finer layers than the last that take part; 2: FCN-8s")
    width: int = Field(128, ge=1, description="channels of the 3x3 convolution on the last map")


@dataclass(frozen=True)
class Segmentation:
    """See protocols.dense.Problem."""

    settings: Settings
    classes: int
    size: int
    val: Pictures = field(repr=False)

    def build(self, encoder: Encoder) -> nn.Module:
        return FCN(encoder, self.classes, self.settings.skips, self.settings.width, self.size)

    def loss(self, model: nn.Module, train: Pictures, rows: list[int], flips: list[bool]) -> Tensor:
        device = next(model.parameters()).device
        images = batch(train.image, rows, flips, 0.0).to(device)
        masks = batch(train.mask, rows, flips, IGNORED).to(device)
        # Pixel by pixel: the loss of whole maps has no deterministic kernel on a GPU.
        y = model(images).permute(0, 2, 3, 1).reshape(-1, self.classes)
        total = F.cross_entropy(y, masks.reshape(-1), ignore_index=IGNORED, reduction="sum")
        return total / (masks != IGNORED).sum().clamp(min=1)

    def score(self, model: nn.Module) -> float:
        return float(np.nan_to_num(mean_iou(self.matrices(model, self.val).sum(0))))

    def matrices(self, model: nn.Module, source: Pictures) -> NDArray[np.int64]:
        """N x classes x classes: each picture's confusion matrix."""
        found = [
            confusion(y.argmax(0).numpy(), source.mask(row).numpy(), self.classes)
            for row, y in predicted(model, source)
        ]
        return np.stack(found)


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """Mean IoU and pixel accuracy, in percent, on the validation and the test split.

    Raises:
        DoesNotApply: the data set has no masks, or a split no pixel that counts.
        UserError: the pictures are too small for the encoder, or no learning rate converges.
    """
    classes = require(task, "masks")
    check_splits(task, lambda source, row: bool((source.mask(row) != IGNORED).any()), "pixel that is not ignored")
    problem = Segmentation(settings, len(classes), task.size, pictures(task, "val"))
    tuned = Training(task, "segmentation", problem, settings, seed).fit()
    found = []
    for split in ("val", "test"):
        matrices = problem.matrices(tuned.model, pictures(task, split))
        for metric, of in (("miou", mean_iou), ("pixel_accuracy", pixel_accuracy)):

            def statistic(counts: Floats, of: Metric = of, matrices: NDArray[np.int64] = matrices) -> Floats:
                return of(np.tensordot(counts, matrices, 1))

            found.append(outcome(split, metric, tuned, statistic, of(matrices)))
    return found
