"""Labelled images of another source, pasted on canvases: exact boxes and masks, with no annotator and no download.

    canvas = clouds; one to `objects` images of `of`, each resized to a share in `scale` of the canvas's side

What each canvas holds and where is a hash of (split_seed, split, number), so equal settings give equal bytes, and a
smaller limit gives a part of a larger one's canvases. Objects do not overlap: one that finds no room in PLACES tries is
left out. With `cut_out` an object is what is not black in its image (Fashion-MNIST, digits), and its box is the
smallest one around that; else it is the whole square (photographs).

The images are shared out before they are pasted: no canvas of one split shows an image of another. There are as many
canvases as images; `train_limit`, `val_limit` and `test_limit` say how many.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from miyagi.data.rng import Key, uniform
from miyagi.data.scene import Annotated, Scene, Scenes
from miyagi.data.source import Images, Raw
from miyagi.data.splits import split
from miyagi.errors import UserError
from miyagi.paths import SPLITS, Paths
from miyagi.registry import SOURCES
from miyagi.settings import AnnotatedDataset, Dataset

PLACES = 10
"""Places that are tried for an object."""
OBJECT = 2 + 2 * PLACES
"""Draws an object takes: which image, its size, and the places."""
CLOUD = 5
"""The clouds are a grid of so many random colours, made smooth."""
DARK = 110
"""Brightest level of a cloud: objects are brighter in places."""
INK = 32
"""Levels from which on a pixel belongs to an object that is cut out."""


@dataclass(frozen=True)
class Canvases:
    """The canvases of one split.

    Attributes:
        images: labelled images; positions: the ones that may be pasted.
        settings: of the data set.
        seed, number: name the draws: the split seed and which split it is.
    """

    images: Images
    positions: np.ndarray
    settings: AnnotatedDataset
    seed: int
    number: int

    def __call__(self, canvas: int) -> Scene:
        """Canvas number `canvas`: its picture, boxes, labels and mask."""
        side, how = self.settings.shorter_side, self.settings
        draws = self._draws(canvas)
        picture, mask = clouds(draws[1 : 1 + 3 * CLOUD**2], side), np.zeros((side, side), np.uint8)
        own = draws[1 + 3 * CLOUD**2 :].reshape(how.objects, OBJECT)[: 1 + int(draws[0] * how.objects)]
        boxes: list[tuple[int, int, int, int]] = []
        labels = []
        for which, size, *places in own.tolist():
            position = int(self.positions[int(which * len(self.positions))])
            length = max(2, round(side * (how.scale[0] + (how.scale[1] - how.scale[0]) * size)))
            pixels, ink = patch(self.images.read(position), length, how.cut_out)
            if not ink.any():
                continue
            rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
            part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            box = room(part[0].stop - part[0].start, part[1].stop - part[1].start, side, places, boxes)
            if box is None:
                continue
            x1, y1, x2, y2 = box
            label, shape = int(self.images.labels[position]), ink[part]
            picture[y1:y2, x1:x2][shape] = pixels[part][shape]
            mask[y1:y2, x1:x2][shape] = label + 1
            boxes.append(box)
            labels.append(label)
        found = np.array(boxes, np.float32).reshape(-1, 4)
        return Scene(picture, found, np.array(labels, np.int64), np.zeros(len(labels), bool), mask)

    def _draws(self, canvas: int) -> np.ndarray:
        n = 1 + 3 * CLOUD**2 + self.settings.objects * OBJECT
        draws = uniform(Key(self.seed, self.number), "scenes", torch.tensor([canvas]), n)[0]
        return draws.numpy().astype(np.float64)


def load(settings: AnnotatedDataset, paths: Paths) -> Annotated:
    """Canvases of `shorter_side` pixels, of the images that `of` gives for the same `path`.

    Raises:
        UserError: its images cannot be had, or have more classes than a mask can tell apart.
    """
    assert settings.of is not None
    raw: Raw = SOURCES.load(settings.of).load(Dataset(source=settings.of, path=settings.path), paths)
    if len(raw.classes) > 254:
        raise UserError(f"scenes: {settings.of} has {len(raw.classes)} classes; a mask tells 254 and background apart")
    shared = settings.model_copy(update={f"{name}_limit": None for name in SPLITS})
    own = (images.labels if images else None for images in (raw.test, raw.val))
    chosen = split(settings.of, shared, raw.classes, raw.train.labels, *own)
    images = {"train": raw.train, "val": raw.val or raw.train, "test": raw.test or raw.train}
    parts = {}
    for number, name in enumerate(SPLITS):
        positions = getattr(chosen, name)
        total = min(getattr(settings, f"{name}_limit") or len(positions), len(positions))
        parts[name] = Scenes(total, Canvases(images[name], positions, settings, settings.split_seed, number))
    kinds = {"boxes": raw.classes, "masks": ["background", *raw.classes]}
    return Annotated(kinds, parts["train"], parts["val"], parts["test"], raw.digest, raw.skipped, raw.notes)


def clouds(draws: np.ndarray, side: int) -> np.ndarray:
    """side x side x 3 uint8: a smooth and rather dark background of CLOUD x CLOUD x 3 draws."""
    grid = (draws.reshape(CLOUD, CLOUD, 3) * DARK).astype(np.uint8)
    return np.array(Image.fromarray(grid).resize((side, side), Image.Resampling.BILINEAR))


def patch(image: np.ndarray, length: int, cut_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """An image as length x length x 3 uint8, and which of its pixels are the object."""
    pixels = np.asarray(Image.fromarray(image).resize((length, length), Image.Resampling.BICUBIC))
    ink = pixels.max(2) >= INK if cut_out else np.ones((length, length), bool)
    return pixels, ink


def room(
    height: int, width: int, side: int, places: list[float], taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """The first of some places (pairs of draws in [0, 1)) for a box that touches none of those that are taken."""
    for left, top in zip(places[::2], places[1::2], strict=True):
        x1, y1 = int(left * (side - width + 1)), int(top * (side - height + 1))
        x2, y2 = x1 + width, y1 + height
        if all(x2 <= a1 or x1 >= a2 or y2 <= b1 or y1 >= b2 for a1, b1, a2, b2 in taken):
            return x1, y1, x2, y2
    return None
