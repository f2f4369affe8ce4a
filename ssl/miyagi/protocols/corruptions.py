"""Accuracy on corrupted test images: 19 corruptions at 5 severities (Hendrycks and Dietterich, ICLR 2019).

The classifier is logistic regression on the frozen features of clean, unaugmented images. Of each of the benchmark's 15
corruptions there is an error as well, the mean over its severities; the report divides it by the supervised floor's and
averages, which is the mean corruption error with our floor where the paper has AlexNet. The 4 extra corruptions are
meant to tune on, so they have no part in that mean.
"""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from miyagi.data import corruptions
from miyagi.data.loader import Raw
from miyagi.errors import UserError, did_you_mean
from miyagi.protocols.base import Outcome
from miyagi.protocols.classifier import Probe
from miyagi.protocols.task import Task
from miyagi.settings import FinetuneSettings, Positive


class Settings(FinetuneSettings):
    """Settings of the corruption benchmark."""

    corruptions: list[str] | None = Field(None, description="null: all 19")
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field([1, 2, 3, 4, 5], min_length=1)
    images: int | None = Field(2000, ge=1, description="test images, the first ones of the split; null: all")
    c: list[Positive] = Field(
        [0.001, 0.01, 0.1, 1.0], min_length=1, description="inverse regularisation, chosen on clean validation images"
    )


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy on clean images and under each corruption at each severity, and each corruption's mean error.

    Raises:
        UserError: there is no such corruption, or the images are too small for the encoder.
    """
    names = settings.corruptions or list(corruptions.TABLE)
    for name in names:
        if name not in corruptions.TABLE:
            known = did_you_mean(name, corruptions.TABLE)
            raise UserError(f"evaluate.corruptions.corruptions: there is no '{name}'; {known}")
    probe = Probe.logistic(task, settings.c)
    images = task.loader("test", limit=settings.images)
    found = []

    def add(metric: str, scores: NDArray[np.float64], condition: dict[str, object]) -> None:
        lower = metric == "error"
        found.append(
            Outcome(
                "encoder", "test", metric, scores, probe.selection, probe.chosen,
                condition=condition, higher_is_better=not lower,
            )
        )  # fmt: skip

    predicted, y = probe.predict(images)
    add("top1", 100.0 * (predicted == y), {"corruption": "none", "severity": 0})
    for name in names:
        hits = [_hits(probe, images(), name, severity) for severity in settings.severities]
        for severity, scores in zip(settings.severities, hits, strict=True):
            add("top1", scores, {"corruption": name, "severity": severity})
        if name in corruptions.COMMON:
            add("error", 100 - np.mean(hits, axis=0), {"corruption": name})
    return found


@torch.inference_mode()
def _hits(probe: Probe, batches: Iterable[Raw], name: str, severity: int) -> NDArray[np.float64]:
    """0 or 100 for each corrupted image."""
    device = probe.encoder.mean.device
    found = []
    for raw in batches:
        raw = raw.to(device)
        x = corruptions.corrupt(name, severity, raw.image / 255, raw.index)
        z = probe.encoder(x.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()
        found.append(probe.fitted.predict(z) == raw.label.cpu().numpy())
    return 100.0 * np.concatenate(found)
