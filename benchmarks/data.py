"""The same images for both sides: files for lightly and torchvision, a beton that `prepare` wrote of them for ours.

ROOT/data/raw/{train,test}/<class>/*    what `prepare` reads: the training images and some for its validation split
ROOT/data/betons/bench/                 what it wrote: its train split is what ours trains with
ROOT/data/peers/train/<class>/*         the files of that train split: what lightly trains with
ROOT/data/raw/test/<class>/*            the queries of the kNN, for both
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Record
from benchmarks.settings import ROOT
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset

KEY = "bench"
VAL = 0.1


@dataclass(frozen=True)
class Source:
    """Labelled images before anything is chosen.

    Attributes:
        classes: folder names.
        train, test: labels.
        write: (split, position, path without suffix, size): puts an image there, at the stored size.
    """

    classes: list[str]
    train: np.ndarray
    test: np.ndarray
    write: Callable[[str, int, Path, int], Path]


def build(root: str, folder: str | None, images: int, test_images: int, size: int) -> Record:
    """Make ROOT's data from Fashion-MNIST (`folder` None) or from FOLDER/{train,test}/<class>/*.

    Images of the stored size are copied as the files they are, all others are stored as PNG at that size first, so both
    sides read equal pixels; every one is compared before anything is measured.

    Returns:
        train, test, classes: counts; imports: seconds of ours; files: of copying them; seconds: of `prepare` alone.
    """
    start = time.perf_counter()
    from miyagi.data.splits import split
    from miyagi.data.threads import import_ffcv
    from miyagi.stages import prepare

    import_ffcv()
    imports = time.perf_counter() - start
    base = Path(root)
    shutil.rmtree(base / "data", ignore_errors=True)
    start = time.perf_counter()
    source = _fashion_mnist() if folder is None else _folder(Path(folder))
    # So many more that `prepare`, which cuts off a tenth for validation, keeps the number that was asked for.
    spare = math.ceil(images * VAL / (1 - VAL)) + len(source.classes)
    pool = split(
        KEY, _dataset(size, train_limit=images, val_limit=spare, test_limit=test_images),
        source.classes, source.train, source.test,
    )  # fmt: skip
    raw = base / "data" / "raw"
    train, train_labels = _write(source, "train", np.concatenate([pool.train, pool.val]), raw / "train", size)
    test, test_labels = _write(source, "test", pool.test, raw / "test", size)
    files = time.perf_counter() - start

    settings = _dataset(size, train_limit=images)
    start = time.perf_counter()
    prepare.run(KEY, settings, Paths(base))
    seconds = time.perf_counter() - start

    chosen = split(KEY, settings, source.classes, train_labels, test_labels)
    kept = [train[position] for position in chosen.train]
    _compare(kept, base, "train")
    _compare([test[position] for position in chosen.test], base, "test")
    for file in kept:
        copy = base / "data" / "peers" / "train" / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return {
        "train": len(kept), "test": len(test), "classes": len(source.classes),
        "imports": imports, "files": files, "seconds": seconds,
    }  # fmt: skip


def exists(root: Path) -> bool:
    """Whether `build` finished here: the copies are what it makes last."""
    return (root / "data" / "peers" / "train").is_dir() and Paths(root).manifest(KEY).is_file()


def _dataset(size: int, **limits: Any) -> Dataset:
    return Dataset(source="imagefolder", path="data/raw", size=size, val_fraction=VAL, **limits)


def _write(source: Source, name: str, positions: np.ndarray, folder: Path, size: int) -> tuple[list[Path], np.ndarray]:
    """Write the images at `positions`; their files and labels in the order in which `imagefolder` will list them."""
    labels = source.train if name == "train" else source.test
    for label in source.classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
    found = [
        (source.write(name, int(p), folder / source.classes[labels[p]] / f"{p:07d}", size), int(labels[p]))
        for p in positions
    ]
    found.sort(key=lambda entry: (os.fsencode(entry[0].parent.name), os.fsencode(entry[0].name)))
    return [file for file, _ in found], np.array([label for _, label in found], dtype=np.int64)


def _compare(files: list[Path], root: Path, name: str) -> None:
    """Every image of a beton against its file, pixel by pixel."""
    from PIL import Image

    from miyagi.data.loader import Loader
    from miyagi.data.source import to_rgb

    loader = Loader(Paths(root).beton(KEY, name), 500)
    if loader.images != len(files):
        raise UserError(f"benchmarks: the {name} beton has {loader.images} images, the folder {len(files)}")
    stored = (image for raw in loader() for image in raw.image.permute(0, 2, 3, 1).numpy())
    for file, pixels in zip(files, stored, strict=True):
        with Image.open(file) as image:
            if not np.array_equal(to_rgb(image), pixels):
                raise UserError(f"benchmarks: the {name} beton does not hold what is in {file}")


def _fashion_mnist() -> Source:
    from PIL import Image

    from miyagi.data.betons import square
    from miyagi.data.sources import fashion_mnist

    # From the system's package, or downloaded once, into the checkout and not into what `clean` deletes.
    raw = fashion_mnist.load(Dataset(source="fashion_mnist", path="built-in"), Paths(ROOT))
    assert raw.test is not None
    splits = {"train": raw.train, "test": raw.test}

    def write(name: str, position: int, path: Path, size: int) -> Path:
        file = path.with_suffix(".png")
        Image.fromarray(square(splits[name].read(position), size)).save(file)
        return file

    return Source([str(label) for label in range(len(raw.classes))], raw.train.labels, raw.test.labels, write)


def _folder(folder: Path) -> Source:
    from PIL import Image

    from miyagi.data.betons import square
    from miyagi.data.pictures import SUFFIXES
    from miyagi.data.source import to_rgb

    classes = sorted((path.name for path in _entries(folder / "train") if path.is_dir()), key=os.fsencode)
    if len(classes) < 2:
        raise UserError(f"--images: {folder / 'train'} needs class folders with images in them, two at least")

    def files(name: str) -> tuple[list[Path], np.ndarray]:
        found = [
            (file, label)
            for label, class_name in enumerate(classes)
            if (folder / name / class_name).is_dir()
            for file in _entries(folder / name / class_name)
            if file.suffix.lower() in SUFFIXES and file.is_file()
        ]
        if not found:
            raise UserError(f"--images: there are no images in {folder / name}/<class>/")
        return [file for file, _ in found], np.array([label for _, label in found], dtype=np.int64)

    train, train_labels = files("train")
    test, test_labels = files("test")

    def write(name: str, position: int, path: Path, size: int) -> Path:
        file = (train if name == "train" else test)[position]
        with Image.open(file) as image:
            if image.size == (size, size):
                copy = path.with_suffix(file.suffix)
                shutil.copyfile(file, copy)
                return copy
            stored = path.with_suffix(".png")
            Image.fromarray(square(to_rgb(image), size)).save(stored)
            return stored

    return Source(classes, train_labels, test_labels, write)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        raise UserError(f"--images: cannot read {folder}: {error.strerror}") from error


def folders(root: Path) -> dict[str, str]:
    """Where lightly finds its files."""
    return {"train": str(root / "data" / "peers" / "train"), "test": str(root / "data" / "raw" / "test")}
