"""Handwritten digits (Alpaydin and Kaynak, 1998): 1,797 images, 8 x 8 grey, 10 classes, inside scikit-learn's wheel.

They need no network and no package, and come without a test split: `test_fraction` of them is cut off.
"""

import numpy as np

from miyagi.data.source import Raw, from_arrays
from miyagi.paths import Paths
from miyagi.settings import Dataset


def load(settings: Dataset, paths: Paths) -> Raw:
    """All 1,797 digits; their grey levels 0..16 become 0..255."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return from_arrays([str(digit) for digit in range(10)], (pixels, labels), None)
