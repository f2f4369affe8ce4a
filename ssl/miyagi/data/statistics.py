"""What an encoder is normalised by: mean and standard deviation of the stored training images."""

from typing import Any

import numpy as np

from miyagi.data.decode import Beton

CHUNK_BYTES = 64 << 20


def statistics(beton: Beton) -> dict[str, Any]:
    """Mean and standard deviation of each channel in [0, 1], and whether any image has a colour.

    Taken from a histogram of the stored bytes in whole numbers, so no order of summation can change a bit.
    """
    histogram = np.zeros((3, 256), dtype=np.int64)
    color = False
    for images in beton.chunks(max(1, CHUNK_BYTES // beton[0].nbytes)):
        color = color or bool((images != images[..., :1]).any())
        for channel in range(3):
            histogram[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    mean, std = [], []
    for bins in histogram.tolist():
        n = sum(bins)
        first = sum(value * count for value, count in enumerate(bins))
        second = sum(value * value * count for value, count in enumerate(bins))
        mean.append(first / n / 255)
        std.append(((n * second - first * first) / (n * n)) ** 0.5 / 255)
    return {"color": color, "mean": mean, "std": std}
