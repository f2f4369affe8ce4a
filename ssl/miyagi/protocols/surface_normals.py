"""Surface normals: dense regression by an FCN on the encoder, all of it trained (Goyal et al., ICCV 2019).

    L = mean over pixels of 1 - <n, y / |y|>,   y = FCN(x), three numbers a pixel

Errors are angles in degrees over all pixels of a split whose normal is known: mean, median, and the share within 11.25,
22.5 and 30 degrees (Fouhey et al., ICCV 2013). Learning rate, length and stop are chosen by the mean on validation.
Data: picture and map folders, e.g. NYUv2's (data/sources/normals.py). A mirrored picture's normals are mirrored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.metrics.angles import angles, pooled_median
from miyagi.metrics.bootstrap import Floats
from miyagi.nn.encoders.base import Encoder
from miyagi.nn.fcn import FCN
from miyagi.protocols.base import Outcome
from miyagi.protocols.dense import (
    Pictures,
    Training,
    Tuned,
    batch,
    check_splits,
    outcome,
    pictures,
    predicted,
    require,
)
from miyagi.protocols.task import Task
from miyagi.settings import DenseSettings

WITHIN = (11.25, 22.5, 30.0)
MEDIAN_DRAWS = 200
"""Of the median's bootstrap: each goes through all pixels."""


class Settings(DenseSettings):
    """Settings of surface normals."""

    skips: int = Field(2, ge=0, description="finer layers than the last that take part")
    width: int = Field(128, ge=1, description="channels of the 3x3 convolution on the last map")


@dataclass(frozen=True)
class Regression:
    """See protocols.dense.Problem."""

    settings: Settings
    size: int
    val: Pictures = field(repr=False)

    def build(self, encoder: Encoder) -> nn.Module:
        return FCN(encoder, 3, self.settings.skips, self.settings.width, self.size)

    def loss(self, model: nn.Module, train: Pictures, rows: list[int], flips: list[bool]) -> Tensor:
        device = next(model.parameters()).device
        images = batch(train.image, rows, flips, 0.0).to(device)
        truth = batch(train.normals, rows, flips, 0.0).to(device)
        known = (truth != 0).any(1)
        cosine = (F.normalize(model(images), dim=1) * truth).sum(1)
        return ((1 - cosine) * known).sum() / known.sum().clamp(min=1)

    def score(self, model: nn.Module) -> float:
        errors = np.concatenate(self.errors(model, self.val))
        return -float(errors.mean()) if errors.size else 0.0

    def errors(self, model: nn.Module, source: Pictures) -> list[Floats]:
        """For each picture the angles of its known pixels, in degrees."""
        found = []
        for row, y in predicted(model, source):
            truth = source.normals(row)
            known = (truth != 0).any(0)
            found.append(angles(F.normalize(y, dim=0)[:, known].T.numpy(), truth[:, known].T.numpy()))
        return found


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """Mean and median angle in degrees, and shares within WITHIN in percent, on the validation and the test split.

    Raises:
        DoesNotApply: the data set has no normals, or a split has no pixel with a known one.
        UserError: the pictures are too small for the encoder, or no learning rate converges.
    """
    require(task, "normals")
    check_splits(task, lambda source, row: bool((source.normals(row) != 0).any()), "pixel with a known normal")
    problem = Regression(settings, task.size, pictures(task, "val"))
    tuned = Training(task, "surface_normals", problem, settings, seed).fit()
    found = []
    for split in ("val", "test"):
        found += outcomes(split, tuned, problem.errors(tuned.model, pictures(task, split)))
    return found


def outcomes(split: str, tuned: Tuned, errors: list[Floats]) -> list[Outcome]:
    """What a split's angles (one array a picture) come to."""

    def mean(score: Callable[[Floats], Floats], metric: str, higher_is_better: bool) -> Outcome:
        sums, sizes = (np.array([f(score(own)) for own in errors], np.float64) for f in (np.sum, np.size))

        def statistic(counts: Floats) -> Floats:
            return ratio(counts @ sums, counts @ sizes)

        return outcome(split, metric, tuned, statistic, ratio(sums, sizes), higher_is_better=higher_is_better)

    each = np.array([np.median(own) if own.size else np.nan for own in errors])
    median = pooled_median(errors)
    return [
        mean(lambda own: own, "angle_mean_degrees", False),
        outcome(split, "angle_median_degrees", tuned, median, each, draws=MEDIAN_DRAWS, higher_is_better=False),
        *(mean(partial(within, most), f"within_{most:g}", True) for most in WITHIN),
    ]


def within(most: float, errors: Floats) -> Floats:
    """100 for each angle below `most` degrees, else 0."""
    return np.where(errors < most, 100.0, 0.0)


def ratio(a: Floats, b: Floats) -> Floats:
    """a / b, NaN where b is 0."""
    found: Floats = np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
    return found
