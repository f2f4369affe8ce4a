"""Object detection: Faster R-CNN (Ren et al., NeurIPS 2015) on the encoder's maps; all of it is trained.

The detector is torchvision's; its backbone is a feature pyramid (Lin et al., CVPR 2017) on the encoder's last layers,
one for each size of anchors. Anchors are shares of the pictures' shorter side, because ours may have 64 pixels where
the papers' have 800. AP, AP50 and AP75 are COCO's (metrics/detection.py); learning rate, length and stop are chosen by
the AP on validation. MoCo (He et al., CVPR 2020): R50-C4 on VOC07+12, AP50 81.5 from MoCo's weights, 81.3 from
ImageNet's labels, 60.2 from scratch; v2 82.5.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from miyagi.data.betons import ASPECT
from miyagi.errors import UserError
from miyagi.metrics.bootstrap import Floats
from miyagi.metrics.detection import METRICS, AveragePrecision, Objects
from miyagi.nn.encoders.base import Encoder, map_shapes
from miyagi.protocols.base import Outcome
from miyagi.protocols.dense import BATCH, Pictures, Training, check_splits, outcome, pictures, require
from miyagi.protocols.task import Task
from miyagi.settings import DenseSettings

ASPECTS = (0.5, 1.0, 2.0)
"""Height over width of the anchors."""
GRID = 7
"""A region is pooled to GRID x GRID."""
CANONICAL = 1.75
"""A box this many times the anchors' side is pooled from their level: 224 pixels for 128, as in the paper."""
PROPOSALS = 300
"""Regions of a picture that are looked at."""
SAMPLED = 128
"""Regions (and anchors) of a picture that a step learns from."""
DRAWS = 200
"""Of the bootstrap: each accumulates the whole split anew."""


class Settings(DenseSettings):
    """Settings of detection."""

    anchors: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.12, 0.25, 0.5], min_length=1, description="sides as shares of the shorter side, finest level first"
    )
    width: int = Field(64, ge=4, description="channels of the feature pyramid; the papers' 256")
    representation: int = Field(256, ge=1, description="width of the two layers on a region; the paper's 1024")


class Pyramid(nn.Module):
    """N x 3 x H x W in [0, 1] to as many maps as levels, each with `out_channels` channels."""

    def __init__(self, encoder: Encoder, layers: list[str], width: int, size: int) -> None:
        super().__init__()
        shapes = map_shapes(encoder, size)
        self.encoder, self.layers, self.out_channels = encoder, layers, width
        self.pyramid = FeaturePyramidNetwork([shapes[name][0] for name in layers], width)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.encoder.maps(x, self.layers)
        found: dict[str, Tensor] = self.pyramid(OrderedDict((name, maps[name]) for name in self.layers))
        return found


@dataclass(frozen=True)
class Detection:
    """See protocols.dense.Problem."""

    settings: Settings
    classes: int
    size: int
    val: Pictures = field(repr=False)

    def build(self, encoder: Encoder) -> nn.Module:
        """The detector; nothing is downloaded.

        Raises:
            UserError: more levels than the encoder has layers.
        """
        levels, width = len(self.settings.anchors), self.settings.width
        if levels > len(encoder.layers):
            raise UserError(
                f"evaluate.detection.anchors: {levels} levels, but the encoder has {len(encoder.layers)} layers"
            )
        sides = tuple((max(2, round(share * self.size)),) for share in self.settings.anchors)
        layers = encoder.layers[-levels:]
        stride = self.size / map_shapes(encoder, self.size)[layers[-1]][1]
        pool = MultiScaleRoIAlign(
            layers, GRID, 2, canonical_scale=round(CANONICAL * sides[-1][0]), canonical_level=round(np.log2(stride))
        )
        detector: nn.Module = FasterRCNN(
            Pyramid(encoder, layers, width, self.size),
            # The encoder normalises; only a picture smaller than the others is resized, to their shorter side.
            image_mean=[0.0] * 3, image_std=[1.0] * 3, min_size=self.size, max_size=ASPECT * self.size,
            rpn_anchor_generator=AnchorGenerator(sides, (ASPECTS,) * levels),
            rpn_pre_nms_top_n_train=2 * PROPOSALS, rpn_pre_nms_top_n_test=2 * PROPOSALS,
            rpn_post_nms_top_n_train=PROPOSALS, rpn_post_nms_top_n_test=PROPOSALS,
            rpn_batch_size_per_image=SAMPLED, box_batch_size_per_image=SAMPLED,
            box_roi_pool=pool,
            box_head=TwoMLPHead(width * GRID**2, self.settings.representation),
            box_predictor=FastRCNNPredictor(self.settings.representation, self.classes + 1),
        )  # fmt: skip
        return detector

    def loss(self, model: nn.Module, train: Pictures, rows: list[int], flips: list[bool]) -> Tensor:
        device = next(model.parameters()).device
        targets = []
        for row, flip in zip(rows, flips, strict=True):
            boxes, labels, difficult = train.objects(row, flip)
            targets.append({"boxes": boxes[~difficult].to(device), "labels": labels[~difficult].to(device) + 1})
        images = [train.image(row, flip).to(device) for row, flip in zip(rows, flips, strict=True)]
        losses: dict[str, Tensor] = model(images, targets)
        return torch.stack(list(losses.values())).sum()

    def score(self, model: nn.Module) -> float:
        return float(np.nan_to_num(self.precision(model, self.val)(np.ones((1, len(self.val))))[0, 0]))

    @torch.inference_mode()
    def precision(self, model: nn.Module, source: Pictures) -> AveragePrecision:
        """What a model finds in a split's pictures, held against what is there."""
        device = next(model.parameters()).device
        truth, found = [], []
        for rows in source.alike(BATCH):
            for row, own in zip(rows, model([source.image(row).to(device) for row in rows]), strict=True):
                boxes, labels, difficult = source.objects(row)
                truth.append(Objects(boxes.numpy(), labels.numpy(), difficult=difficult.numpy()))
                boxes, labels, scores = (own[key].float().cpu().numpy() for key in ("boxes", "labels", "scores"))
                found.append(Objects(boxes, labels - 1, scores))
        return AveragePrecision(truth, found, self.classes)


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """AP, AP50 and AP75, in percent, on the validation and the test split.

    Raises:
        DoesNotApply: the data set has no boxes, or a split no object that counts.
        UserError: the pictures are too small for the encoder, or no learning rate converges.
    """
    classes = require(task, "boxes")
    check_splits(task, lambda source, row: bool((~source.objects(row)[2]).any()), "object that is not difficult")
    problem = Detection(settings, len(classes), task.size, pictures(task, "val"))
    tuned = Training(task, "detection", problem, settings, seed).fit()
    found = []
    for split in ("val", "test"):
        source = pictures(task, split)
        precision = problem.precision(tuned.model, source)
        alone = precision(np.eye(len(source)))
        for column, metric in enumerate(METRICS):

            def statistic(counts: Floats, column: int = column, of: AveragePrecision = precision) -> Floats:
                return of(counts)[:, column]

            found.append(outcome(split, metric, tuned, statistic, alone[:, column], draws=DRAWS))
    return found
