"""SVHN (Netzer et al., 2011): 73,257 + 26,032 house-number digits, 32 x 32 RGB, 10 classes.

The 531,131 easier images of the `extra` split are not used.
"""

from miyagi.data.source import Raw, fetched, from_arrays
from miyagi.paths import Paths
from miyagi.settings import Dataset


def load(settings: Dataset, paths: Paths) -> Raw:
    """Both splits from `data/raw/svhn`, downloaded where they are missing.

    Raises:
        UserError: no files and no network.
    """
    from torchvision.datasets import SVHN

    folder = paths.raw / "svhn"
    train, test = fetched(
        "svhn",
        folder,
        "train_32x32.mat and test_32x32.mat",
        lambda download: (SVHN(folder, "train", download=download), SVHN(folder, "test", download=download)),
    )
    return from_arrays(
        [str(digit) for digit in range(10)],
        (train.data.transpose(0, 2, 3, 1), train.labels),
        (test.data.transpose(0, 2, 3, 1), test.labels),
    )
