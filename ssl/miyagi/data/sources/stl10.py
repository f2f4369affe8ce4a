"""STL-10 (Coates et al., AISTATS 2011): 5,000 + 8,000 labelled photographs, 96 x 96 RGB, 10 classes.

The 100,000 unlabelled images of the same archive are not used.
"""

from miyagi.data.source import Raw, fetched, from_arrays
from miyagi.paths import Paths
from miyagi.settings import Dataset

CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def load(settings: Dataset, paths: Paths) -> Raw:
    """Both labelled splits from `data/raw/stl10`, downloaded where they are missing.

    Raises:
        UserError: no files and no network.
    """
    from torchvision.datasets import STL10

    folder = paths.raw / "stl10"
    train, test = fetched(
        "stl10",
        folder,
        "stl10_binary.tar.gz, unpacked,",
        lambda download: (STL10(folder, "train", download=download), STL10(folder, "test", download=download)),
    )
    return from_arrays(
        CLASSES,
        (train.data.transpose(0, 2, 3, 1), train.labels),
        (test.data.transpose(0, 2, 3, 1), test.labels),
    )
