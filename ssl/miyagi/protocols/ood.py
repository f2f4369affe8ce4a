"""Out-of-distribution detection: how well a score tells one data set's images from those of another one.

The detectors see the training split of the data set that is in distribution, and nothing of the other one:

    knn           1 - cosine to the k-th nearest training image (Sun et al., ICML 2022)
    mahalanobis   min over classes c of (f - m_c)' S^-1 (f - m_c), S the covariance shared by all classes
                  (Lee et al., NeurIPS 2018); S + ridge tr(S)/D I where S is nearly singular

A row is one detector against one other data set: AUROC in percent (metrics/auroc.py), its test split against the
other's, val against val. 50 is chance, less than 50 says that the other data set looks more typical than its own.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miyagi.errors import UserError
from miyagi.metrics.auroc import auroc
from miyagi.metrics.bootstrap import weighted
from miyagi.metrics.knn import CHUNK, normalize
from miyagi.protocols.base import Bank, DoesNotApply, Features, Outcome
from miyagi.settings import Frozen

Floats = NDArray[np.float64]
Score = Callable[[NDArray[np.float32]], Floats]
"""N x D features to N numbers, higher for what is less typical."""


class Settings(Frozen):
    """Settings of the OOD protocol."""

    detectors: list[Literal["knn", "mahalanobis"]] = Field(["knn", "mahalanobis"], min_length=1)
    k: Annotated[int, Field(ge=1)] = Field(50, description="knn: which neighbour's distance; 50 for CIFAR's 50,000")
    ridge: float = Field(
        1e-3, ge=0, description="mahalanobis: added to the covariance, as a share of its mean variance"
    )
    layers: list[str] = Field(["encoder"], min_length=1)


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """AUROC of each detector against each other data set; `seed` has no effect.

    Raises:
        DoesNotApply: there is no other data set, or k is larger than the training split.
    """
    if not bank.others:
        raise DoesNotApply("there is no other data set to tell it from")
    found = []
    for layer in settings.layers:
        train = bank.split("train", layer)
        for detector in settings.detectors:
            score = knn_distance(train, settings.k) if detector == "knn" else mahalanobis(train, settings.ridge)
            for split in ("val", "test"):
                own = score(bank.features(split, layer))
                for name, other in bank.others.items():
                    scores = np.concatenate([own, score(other.features(split, layer))])
                    outside = np.arange(len(scores)) >= len(own)
                    sizes = [len(own), len(scores) - len(own)]
                    span, redrawn = weighted(partial(_percent, scores, outside), sizes)
                    found.append(
                        Outcome(
                            layer, split, "auroc", scores, "fixed", condition={"against": name, "detector": detector},
                            span=span, redrawn=redrawn, n=len(scores),
                        )
                    )  # fmt: skip
    return found


def _percent(scores: Floats, outside: NDArray[np.bool_], counts: Floats) -> Floats:
    return 100 * auroc(scores, outside, counts)


def knn_distance(train: Features, k: int) -> Score:
    """1 - cosine to the k-th nearest image of `train`."""
    if k > len(train.x):
        raise DoesNotApply(f"evaluate.ood.k: {k} neighbours, but the bank holds {len(train.x)} training images")
    bank = normalize(train.x).T

    def score(x: NDArray[np.float32]) -> Floats:
        found = np.empty(len(x))
        for start in range(0, len(x), CHUNK):
            cosines = normalize(x[start : start + CHUNK]) @ bank
            found[start : start + CHUNK] = 1 - np.partition(cosines, -k, axis=1)[:, -k].astype(np.float64)
        return found

    return score


def mahalanobis(train: Features, ridge: float) -> Score:
    """The squared Mahalanobis distance to the nearest class of `train`."""
    if train.y.ndim == 2:
        raise DoesNotApply("an image has several labels, so it has no class mean; take mahalanobis off the detectors")
    classes, label = np.unique(train.y, return_inverse=True)
    x = train.x.astype(np.float64)
    means = np.stack([x[label == c].mean(0) for c in range(len(classes))])
    centred = x - means[label]
    covariance = centred.T @ centred / len(x)
    covariance[np.diag_indices_from(covariance)] += ridge * np.trace(covariance) / len(covariance)
    try:
        root = np.linalg.inv(np.linalg.cholesky(covariance)).T  # covariance^-1 = root root'
    except np.linalg.LinAlgError:
        raise UserError("evaluate.ood.ridge: the covariance of the features is singular; take a larger ridge") from None
    projected = means @ root

    def score(x: NDArray[np.float32]) -> Floats:
        found = x.astype(np.float64) @ root
        distances: Floats = np.stack([((found - mean) ** 2).sum(1) for mean in projected]).min(0)
        return distances

    return score
