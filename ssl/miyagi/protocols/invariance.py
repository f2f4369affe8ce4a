"""What the head throws away: how well a small MLP tells what was done to an image, before and after it.

A contrastive loss asks the head's output to be the same whatever the augmentation did, so what can still be read there
is less than what can be read from the layer before (Chen et al., ICML 2020, table 3). The features of transformed
images come from the embed stage (`embed.transforms`); each image stands there once as it is and once for each
transformation, so chance is 25 % for rotation and 50 % for the others, as a row's condition says.

A score is the share of one image's copies that are recognised. The MLP is trained on copies of training images and
asked about copies of others; its settings are fixed, so nothing is chosen.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miyagi.protocols.base import Bank, DoesNotApply, Outcome
from miyagi.protocols.linear_fits import Scaler
from miyagi.settings import Frozen


class Settings(Frozen):
    """Settings of the invariance protocol."""

    width: int = Field(128, ge=1, description="hidden units")
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(256, ge=1)
    lr: float = Field(2e-3, gt=0)
    alpha: float = Field(1e-3, ge=0, description="l2 penalty")


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """Accuracy, in percent, for each transformation in the bank, each layer, on copies of val and test images.

    Args:
        bank: with transformed images.
        settings: of the MLP.
        seed: of its initialisation and the order of the images.

    Raises:
        DoesNotApply: the bank has no transformed images.
    """
    if not bank.transforms:
        raise DoesNotApply("its bank has no transformed images; list some under embed.transforms")
    found = []
    for name, copies in bank.transforms.items():
        for layer in ("encoder", "head"):
            x, y, _ = _copies(bank, "train", layer, copies)
            scale = Scaler(x)
            model = _fit(scale(x), y, settings, seed)
            for split in ("val", "test"):
                x, y, images = _copies(bank, split, layer, copies)
                right = 100.0 * (model.predict(scale(x)) == y)
                condition = {"transform": name, "chance": round(100 / (len(copies) + 1))}
                scores = right.reshape(-1, images).mean(0)
                found.append(Outcome(layer, split, "top1", scores, "fixed", condition=condition))
    return found


def _copies(
    bank: Bank, split: str, layer: str, copies: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """The same images as they are and in each transformed copy, which copy each row is, and the number of images."""
    transformed = [bank.features(f"{split}~{copy}", layer) for copy in copies]
    n = len(transformed[0])
    x = np.concatenate([bank.features(split, layer)[:n], *transformed])
    return x, np.repeat(np.arange(len(copies) + 1), n), n


def _fit(x: NDArray[np.float64], y: NDArray[np.int64], settings: Settings, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        (settings.width,),
        alpha=settings.alpha,
        batch_size=min(settings.batch_size, len(x)),
        learning_rate_init=settings.lr,
        max_iter=settings.epochs,
        n_iter_no_change=settings.epochs,  # every run has the same length
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)
