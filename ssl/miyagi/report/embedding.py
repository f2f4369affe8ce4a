"""The embedding map: test images in the plane of their features' two main directions, coloured by class.

PCA and not t-SNE or UMAP: a linear picture has no parameter to tune until it looks good, and no seed. How much of the
features' variance the plane holds is said beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miyagi.report.figures import Image, rows

POINTS = 400
"""Images on a map, the first of the test split, whose order is random. Their pictures are in the page once."""
COLUMNS, SIDE = 20, 32
"""The common sheet of pictures: so many a row, so many pixels each."""


@dataclass(frozen=True)
class Point:
    """One image: where it lies in [0, 100] x [0, 100] (y downwards), and its class as a number."""

    x: float
    y: float
    label: int


@dataclass(frozen=True)
class Map:
    """An experiment's map.

    Attributes:
        points: in the order of the test split.
        share: how much of the variance the plane holds, in [0, 1].
    """

    points: Sequence[Point]
    share: float


def embedding_map(bank: Path, layer: str) -> Map:
    """The map of the first test images, by a bank of features whose images have one label each.

    Raises:
        OSError, safetensors.SafetensorError: the bank cannot be read, or lacks the layer.
    """
    from safetensors import safe_open

    with safe_open(bank, "numpy") as tensors:
        x, labels = (rows(tensors, f"test.{name}", POINTS) for name in (layer, "labels"))
    plane, share = principal_plane(x.astype(np.float64))
    low, span = plane.min(0), np.ptp(plane, axis=0).max() or 1.0  # one scale for both: distances mean something
    room = (100 - 100 * np.ptp(plane, axis=0) / span) / 2
    placed = np.round(100 * (plane - low) / span + room, 1)
    return Map([Point(a, 100 - b, int(label)) for (a, b), label in zip(placed.tolist(), labels, strict=True)], share)


def principal_plane(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """N x D features to N x 2 coordinates along the two directions of largest variance, and those two's share of it.

    A direction's sign is free; it is chosen so that its largest entry is positive, which makes the map a function of
    the features alone.
    """
    centred = x - x.mean(0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    variance = sizes**2
    two = np.zeros((2, x.shape[1]))
    two[: min(2, len(directions))] = directions[:2]
    signs = np.sign(two[np.arange(2), np.abs(two).argmax(1)])
    return centred @ (two * signs[:, None]).T, float(variance[:2].sum() / (variance.sum() or 1.0))


def sprite(images: Sequence[Image]) -> Image:
    """One picture of all: COLUMNS a row, SIDE x SIDE each."""
    from PIL import Image as Pillow

    high = -(-len(images) // COLUMNS)
    sheet = np.zeros((high * SIDE, COLUMNS * SIDE, 3), np.uint8)
    for i, image in enumerate(images):
        small = image if image.shape[:2] == (SIDE, SIDE) else np.asarray(Pillow.fromarray(image).resize((SIDE, SIDE)))
        top, left = SIDE * (i // COLUMNS), SIDE * (i % COLUMNS)
        sheet[top : top + SIDE, left : left + SIDE] = small
    return sheet


def colour(label: int, classes: int) -> str:
    """A colour for a class: hues evenly spaced, neighbours apart by the golden ratio, seen on light and on dark."""
    hue = (label * 0.618034 % 1) if classes > 12 else label / classes
    return f"hsl({360 * hue:.0f} {'75%' if label % 2 else '60%'} {'42%' if label % 2 else '58%'})"
