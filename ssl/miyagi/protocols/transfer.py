"""Transfer to the data sets that the encoder was not pretrained on: frozen, and fine-tuned.

    frozen     logistic regression on the frozen features of unaugmented images
    finetuned  the whole network, BatchNorm included, from the pretrained encoder

`labels: [1000]` is the setting of VTAB (Zhai et al., arXiv 1910.04867): of 1,000 labelled training images 800 are
trained on and 200 choose; what was chosen is then trained on all 1,000. No other label is looked at.

An experiment that does not pretrain (the floor `random`) starts fine-tuning from its own initialisation and with the
grid `scratch`: its row is training from scratch on the target data set.
"""

import sys
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miyagi.data.rng import Key, fold, permutation
from miyagi.errors import UserError
from miyagi.protocols import linear_fits
from miyagi.protocols.base import Features, Outcome
from miyagi.protocols.classifier import Classifier, Probe, Trainer, outcomes
from miyagi.protocols.task import Task
from miyagi.settings import FinetuneSettings, Grid, Optimization, Positive
from miyagi.train.features import features

TRAINED_ON = 0.8
"""VTAB's share of the labelled images that is trained on while the rest choose."""


class Settings(FinetuneSettings):
    """Settings of the transfer protocol."""

    others: ClassVar[bool] = True

    modes: list[Literal["frozen", "finetuned"]] = Field(["frozen", "finetuned"], min_length=1)
    labels: list[Annotated[int, Field(ge=10)] | None] = Field(
        [None], min_length=1, description="labelled images; null: all of them, 1000: VTAB's setting"
    )
    c: list[Positive] = Field([0.001, 0.01, 0.1, 1.0], min_length=1, description="frozen: inverse regularisation")
    finetune: Grid = Field(Grid(lr=[3e-4, 1e-3, 3e-3], steps=[200, 600]), description="for a pretrained encoder")
    scratch: Grid = Field(Grid(lr=[1e-3, 3e-3, 1e-2], steps=[400, 1200]), description="for the floor from scratch")
    optimization: Optimization = Optimization()


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy on one data set, a row a mode and a number of labels.

    Raises:
        UserError: the data set has too few labels for every number asked for, those drawn are of one class, its images
            are too small for the encoder, or no learning rate converges.
    """
    known = task.labels("train")
    total = len(known)
    found = []
    for labels in settings.labels:
        if labels is not None and labels >= total:
            few = f"datasets.{task.dataset} has {total} training images, too few for evaluate.transfer.labels {labels}"
            if all(other is not None and other >= total for other in settings.labels):
                raise UserError(f"{few}; null takes all of them")
            print(f"miyagi: note: {few}: left out", file=sys.stderr)
            continue
        chosen = None if labels is None else permutation(Key(seed, 0), "transfer", total)[:labels]
        if chosen is not None and len(np.unique(known[_cut(chosen)[0]])) < 2:
            raise UserError(
                f"evaluate.transfer.labels: of {labels} labelled images of datasets.{task.dataset} those that are "
                "trained on are of one class; ask for more"
            )
        for mode in settings.modes:
            classifier = _frozen(task, settings, chosen) if mode == "frozen" else _tuned(task, settings, chosen, seed)
            found += outcomes(task, classifier, {"mode": mode, "labels": labels or total})
    return found


def _cut(chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is trained on, and what chooses."""
    border = round(TRAINED_ON * len(chosen))
    return chosen[:border], chosen[border:]


def _frozen(task: Task, settings: Settings, chosen: NDArray[np.int64] | None) -> Classifier:
    if chosen is None:
        return Probe.logistic(task, settings.c)
    encoder = task.encoder()
    train, val, both = (
        Features(*features(encoder, task.loader("train", subset=part)())) for part in (*_cut(chosen), chosen)
    )
    tried = linear_fits.logistic(train, val, settings.c)
    whole = linear_fits.logistic(both, val, [tried.chosen["c"]])
    return Probe(encoder, whole._replace(selection=tried.selection.replace("val", f"{len(val.x)} of the labels")))


def _tuned(task: Task, settings: Settings, chosen: NDArray[np.int64] | None, seed: int) -> Classifier:
    trainer = Trainer(task, "transfer", settings.optimization, seed, fold(seed, "transfer"))
    kind = "finetune" if task.pretrained else "scratch"
    grid, key = getattr(settings, kind), f"evaluate.transfer.{kind}"
    if chosen is None:
        return trainer.fit(trainer.train_loader(), task.loader("val"), grid, key)
    train, val = _cut(chosen)
    tried = trainer.fit(trainer.train_loader(train), task.loader("train", subset=val), grid, key)
    again = trainer.again(trainer.train_loader(chosen), tried)
    return replace(again, selection=tried.selection.replace("val", f"{len(val)} of the labels"))
