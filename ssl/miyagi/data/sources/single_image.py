"""Very many crops of one large picture (Asano et al., ICLR 2020: one image is enough for early layers).

`path` is your picture; this module's own path means scikit-learn's `china.jpg` (640 x 427), which needs no network.
A crop is a square whose area is a share of the largest centred square's, uniform in AREA; where it lies and how large
it is is a hash of (split_seed, number). As in the paper it is turned by up to TURN degrees, with nothing of the outside
of the picture in it. The picture is one piece of training, validation and test: crops overlap across the splits.

There are no labels: all crops are of one class. What wants labels to tell apart (the supervised floor, every
classifier) refuses it or leaves it out with one line; what was trained on it is evaluated on the other data sets.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from miyagi.data.pictures import Listing, examined
from miyagi.data.rng import Key, uniform
from miyagi.data.source import Images, Raw
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset

CROPS, TESTS = 10_000, 500
"""Crops to train on (and to cut validation from) where `train_limit` says nothing, and to test on."""
AREA = (0.005, 0.25)
"""Shares of the picture's largest square that a crop's area is drawn from."""
TURN = 30.0
"""Degrees that a crop is turned at most, either way."""


def load(settings: Dataset, paths: Paths) -> Raw:
    """Crops of `size` pixels; the digest is of the picture's pixels.

    Raises:
        UserError: the picture is not there, cannot be read, or its smallest crop has no pixel.
    """
    picture = _picture(settings, paths)
    limit = settings.train_limit or CROPS
    total = round(limit / (1 - settings.val_fraction)) + 1  # so that `train_limit` are left after validation

    def images(count: int, number: int) -> Images:
        def read(position: int) -> np.ndarray:
            return crop(picture, settings.size, Key(settings.split_seed, number), position)

        return Images(np.zeros(count, np.int64), read)

    digest = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
    notes = ["crops of one picture: there are no labels, and the splits overlap"]
    return Raw(["picture"], images(total, 0), images(settings.test_limit or TESTS, 1), digest, notes=notes)


def crop(picture: np.ndarray, size: int, key: Key, number: int) -> np.ndarray:
    """Crop `number` of a picture, size x size x 3 uint8 (bilinear on an antialiased copy where it shrinks)."""
    height, width = picture.shape[:2]
    area, turn, left, top = uniform(key, "single_image", torch.tensor([number]), 4)[0].double().tolist()
    side = min(height, width) * (AREA[0] + (AREA[1] - AREA[0]) * area) ** 0.5
    angle = np.deg2rad(TURN * (2 * turn - 1))
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    reach = side / 2 * (abs(cos) + abs(sin))  # of the turned square, from its centre
    x = reach + left * (width - 2 * reach)
    y = reach + top * (height - 2 * reach)
    corner = int(x - reach), int(y - reach)
    part = Image.fromarray(picture).crop((*corner, int(np.ceil(x + reach)), int(np.ceil(y + reach))))
    # Shrinking by a whole factor first averages what one bilinear step would leave out.
    factor = max(1, int(side / size))
    if factor > 1:
        part = part.reduce(factor)
    step, x, y = side / size / factor, (x - corner[0]) / factor, (y - corner[1]) / factor
    a, b, half = cos * step, -sin * step, size / 2
    # The result's point (u, v) shows the part's (a (u - half) + b (v - half) + x, -b (u - half) + a (v - half) + y).
    matrix = (a, b, x - (a + b) * half, -b, a, y - (a - b) * half)
    return np.asarray(part.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def _picture(settings: Dataset, paths: Paths) -> np.ndarray:
    file = paths.root / settings.path
    if file.suffix == ".py":
        from sklearn.datasets import load_sample_image

        china: np.ndarray = load_sample_image("china.jpg")
        return china
    if not file.is_file():
        raise UserError(f"single_image: there is no picture {settings.path}; mend the path")
    listing = Listing()
    kept, read = examined(Path(file.parent), [(file, None)], listing)
    if not kept:
        raise UserError(f"single_image: cannot read {settings.path}: {listing.skipped[0]['reason']}")
    return read(0)
