"""Class activation maps: where in an image a linear classifier on an encoder's map finds its evidence.

    M_c(i, j) = sum_k w_ck (f_k(i, j) - mean_k)

as in Zhou et al. (CVPR 2016), with w the weights of a linear classifier on the map's mean over all places. Here the
classifier is ridge regression to the classes, which has a closed form, on a map that the bank of features holds
already: nothing is trained, and no network runs. The mean of M_c over the places is the image's score for c, up to a
constant.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miyagi.report.figures import Image, firsts, rows

IMAGES = 5000
"""Training images that the classifier is fitted to: more would move no map by what an eye can see."""
RIDGE = 1e-2
"""Of the mean variance of a channel."""
SIDE, OPAQUE = 96, 0.65
FOR, AGAINST = (230, 60, 30), (40, 90, 220)


@dataclass(frozen=True)
class Activations:
    """An experiment's maps.

    Attributes:
        layer: whose map, of `grid` x `grid` places.
        queries: Q indices of test images, the first of each class.
        labels: their classes.
        maps: Q x grid x grid, in [-1, 1]: each image's largest evidence is 1 or -1.
    """

    layer: str
    grid: int
    queries: NDArray[np.int64]
    labels: NDArray[np.int64]
    maps: NDArray[np.float64]

    def pictures(self, images: Mapping[int, Image]) -> list[Image]:
        """The queries with their maps on them, red for the image's class and blue against it."""
        return [overlay(images[i], map_) for i, map_ in zip(self.queries.tolist(), self.maps, strict=True)]


def activations(bank: Path) -> Activations | None:
    """The maps of the first test image of each class; None where the bank holds no layer as a map of 2 x 2 or more.

    The deepest layer that is kept at 3 x 3 or finer is taken, else the deepest at 2 x 2.

    Raises:
        OSError, safetensors.SafetensorError, ValueError: the bank cannot be read.
    """
    from safetensors import safe_open

    with safe_open(bank, "numpy") as tensors:
        stamp: dict[str, Any] = json.loads((tensors.metadata() or {}).get("miyagi", "{}"))
        widths = {layer: tensors.get_slice(f"train.{layer}").get_shape()[1] for layer, _ in stamp.get("channels", ())}
        found = mapped(stamp.get("channels", ()), widths)
        if found is None:
            return None
        layer, channels, grid = found
        y = rows(tensors, "train.labels", IMAGES)
        if y.ndim > 1:
            return None
        x = rows(tensors, f"train.{layer}", IMAGES).reshape(-1, channels, grid, grid)
        labels = tensors.get_tensor("test.labels")
        queries = firsts(labels)
        shown = tensors.get_tensor(f"test.{layer}")[queries].reshape(-1, channels, grid, grid)
    weights, mean = ridge(x.mean((2, 3), dtype=np.float64), y)
    own = weights[:, np.clip(labels[queries], 0, weights.shape[1] - 1)]
    maps = np.einsum("kq,qkij->qij", own, shown - mean[None, :, None, None])
    largest = np.abs(maps).max((1, 2), keepdims=True)
    return Activations(layer, grid, queries, labels[queries], maps / np.maximum(largest, 1e-12))


def mapped(channels: Sequence[tuple[str, int]], widths: Mapping[str, int]) -> tuple[str, int, int] | None:
    """The layer to look at, its channels, and the side of its map; see `activations`.

    Args:
        channels: (layer, channels) of the encoder's layers, first to last.
        widths: layer -> dimensions in the bank: channels x side x side.
    """
    sides = [(layer, count, round((widths[layer] / count) ** 0.5)) for layer, count in channels]
    whole = [entry for entry in reversed(sides) if entry[1] * entry[2] ** 2 == widths[entry[0]]]
    return next((entry for least in (3, 2) for entry in whole if entry[2] >= least), None)


def ridge(x: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (D x C) of the regression from x (N x D) to the classes of y as +1 and 0, and the mean of x."""
    mean = x.mean(0)
    centred, targets = x - mean, np.eye(int(y.max()) + 1)[y]
    gram = centred.T @ centred
    penalty = RIDGE * np.trace(gram) / len(gram) or 1.0
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), centred.T @ (targets - targets.mean(0))), mean


def overlay(image: Image, evidence: NDArray[np.float64]) -> Image:
    """An H x W x 3 image, in grey, under a map of evidence in [-1, 1]: SIDE x SIDE x 3."""
    from PIL import Image as Pillow

    size = (SIDE, SIDE)
    grey = np.asarray(Pillow.fromarray(image).convert("L").resize(size, Pillow.Resampling.NEAREST), np.float64)
    drawn = Pillow.fromarray(evidence.astype(np.float32)).resize(size, Pillow.Resampling.BILINEAR)
    fine = np.asarray(drawn)[..., None]
    colour = np.where(fine > 0, FOR, AGAINST)
    alpha = OPAQUE * np.abs(fine)
    blended: Image = (grey[..., None] * (1 - alpha) + colour * alpha).round().astype(np.uint8)
    return blended
