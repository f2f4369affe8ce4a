"""Fine-tuning on few labels: the whole network, on a class-balanced share of the training labels.

As in SimCLR (Chen et al., ICML 2020, section 6) and PIRL: 1 % and 10 % of the labels, the same number a class. Which
images are labelled is drawn anew for each draw and seed, and is the same for every experiment; 1 % is a part of 10 %.
A row's `labels` is what was trained on; the grid is chosen on the whole validation split, as in the papers.

From scratch: an experiment that does not pretrain (the floor `random`) starts from its own initialisation, with the
grid `scratch`. So its row is the one baseline that all experiments share, and their difference to it is the gain.
"""

import sys
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miyagi.data.rng import Key, fold, permutation
from miyagi.protocols.base import Outcome
from miyagi.protocols.classifier import Trainer, outcomes
from miyagi.protocols.task import Task
from miyagi.settings import FinetuneSettings, Grid, Optimization


class Settings(FinetuneSettings):
    """Settings of the low-label protocol."""

    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field([0.01, 0.1, 1.0], min_length=1)
    draws: int = Field(3, ge=1, description="sets of labelled images a fraction below 1")
    finetune: Grid = Field(Grid(lr=[3e-4, 1e-3, 3e-3], steps=[200, 600]), description="for a pretrained encoder")
    scratch: Grid = Field(Grid(lr=[1e-3, 3e-3, 1e-2], steps=[400, 1200]), description="for the floor from scratch")
    optimization: Optimization = Optimization()


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy of a network fine-tuned on each fraction and draw; rows say the number of labels.

    Raises:
        UserError: the images are too small for the encoder, or no learning rate converges.
    """
    labels = task.labels("train")
    kind = "finetune" if task.pretrained else "scratch"
    found = []
    for fraction in settings.fractions:
        for draw in range(settings.draws if fraction < 1 else 1):
            chosen = balanced(labels, len(task.classes), fraction, fold(seed, draw))
            if draw == 0:
                _tell(task, labels, chosen, fraction)
            trainer = Trainer(task, "lowlabel", settings.optimization, seed, fold(seed, "lowlabel", draw))
            train, val = trainer.train_loader(chosen), task.loader("val")
            trained = trainer.fit(train, val, getattr(settings, kind), f"evaluate.lowlabel.{kind}")
            condition = {"fraction": fraction, "labels": len(chosen)}
            found += outcomes(task, trained, condition, draw)
    return found


def balanced(labels: NDArray[np.int64], classes: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Positions of a class-balanced share: each class the same number, at least one, at most what it has.

    Args:
        labels: N, of the whole split.
        classes: how many there are; one without an image stays without.
        fraction: share of the N labels; 1 takes them all, balanced or not.
        seed: of the draw. A smaller fraction of the same draw is a part of a larger one.

    Returns:
        The positions, ascending.
    """
    if fraction == 1:
        return np.arange(len(labels))
    each = max(1, round(fraction * len(labels) / classes))
    own = [np.flatnonzero(labels == label) for label in range(classes)]
    drawn = [
        rows[permutation(Key(seed, label), "labelled", len(rows))[:each]] for label, rows in enumerate(own) if len(rows)
    ]
    return np.sort(np.concatenate(drawn))


def _tell(task: Task, labels: NDArray[np.int64], chosen: NDArray[np.int64], fraction: float) -> None:
    """One line on what is odd about the labelled images."""
    counts, have = (np.bincount(y, minlength=len(task.classes)) for y in (labels[chosen], labels))
    most = counts.max()
    for odd, what in ((have == 0, "no image to train on"), ((have > 0) & (counts < most), f"fewer than {most}")):
        if fraction < 1 and odd.any():
            names = [name for name, is_odd in zip(task.classes, odd, strict=True) if is_odd]
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            print(
                f"miyagi: note: lowlabel at {100 * fraction:g} % of datasets.{task.dataset}: {len(names)} of "
                f"{len(counts)} classes have {what}: {listed}",
                file=sys.stderr,
            )
