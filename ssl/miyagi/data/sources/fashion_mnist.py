"""Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 articles of clothing, 28 x 28 grey, 10 classes.

Debian's package `dataset-fashion-mnist` holds the four original files; without it they are downloaded. The files are
read here, not by torchvision, whose import alone takes seconds.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from miyagi.data.source import Raw, fetched, from_arrays
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def load(settings: Dataset, paths: Paths) -> Raw:
    """Both splits from Debian's folder, else from `data/raw/fashion_mnist`, else by download.

    Raises:
        UserError: the files are nowhere, or damaged.
    """
    own = paths.raw / "fashion_mnist"
    downloaded = own / "FashionMNIST" / "raw"  # torchvision's own sub-folders

    def complete(folder: Path) -> bool:
        return all(_unpacked(folder / name).is_file() for name in FILES)

    def download(allowed: bool) -> Path:
        if not allowed:
            raise FileNotFoundError(own)
        from torchvision.datasets import FashionMNIST

        FashionMNIST(own, train=True, download=True)
        return downloaded

    folder = next((folder for folder in (DEBIAN, own, downloaded) if complete(folder)), None)
    if folder is None:
        files = f"{', '.join(FILES)} (or `apt-get install dataset-fashion-mnist`, which puts them into {DEBIAN})"
        folder = fetched("fashion_mnist", own, files, download)
    train_images, train_labels, test_images, test_labels = (_idx(folder / name) for name in FILES)
    return from_arrays(CLASSES, (train_images, train_labels), (test_images, test_labels))


def _unpacked(file: Path) -> Path:
    return file if file.is_file() else file.with_suffix("")


def _idx(file: Path) -> np.ndarray:
    """An IDX file, gzipped or not: two zero bytes, type 8 (uint8), rank, sizes big-endian, data."""
    try:
        file = _unpacked(file)
        data = file.read_bytes() if file.suffix != ".gz" else gzip.decompress(file.read_bytes())
        if data[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of bytes")
        sizes = np.frombuffer(data, ">u4", data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise UserError(f"fashion_mnist: cannot read {file}: {error}; remove it and try again") from error
