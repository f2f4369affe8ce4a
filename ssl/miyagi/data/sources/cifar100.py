"""CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 photographs, 32 x 32 RGB, 100 classes.

The original files are Python pickles. torchvision compares each with its published md5 before it opens it, so no
other pickle is ever loaded.
"""

import numpy as np

from miyagi.data.source import Raw, fetched, from_arrays
from miyagi.paths import Paths
from miyagi.settings import Dataset


def load(settings: Dataset, paths: Paths) -> Raw:
    """Both splits from `data/raw/cifar100`, downloaded where they are missing.

    Raises:
        UserError: no files and no network.
    """
    from torchvision.datasets import CIFAR100

    folder = paths.raw / "cifar100"
    train, test = fetched(
        "cifar100",
        folder,
        "cifar-100-python.tar.gz, unpacked,",
        lambda download: (CIFAR100(folder, True, download=download), CIFAR100(folder, False, download=download)),
    )
    return from_arrays(
        list(train.classes), (train.data, np.asarray(train.targets)), (test.data, np.asarray(test.targets))
    )
