"""Your own pictures: `FOLDER/train/<class>/*` and `FOLDER/test/<class>/*`, or one `FOLDER/<class>/*` tree.

Without a test folder, `test_fraction` of the images is cut off. Names are compared as bytes, so the order depends on
no locale. Every image is decoded once before anything is counted: a damaged one is left out, and the manifest says so.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from miyagi.data.source import Images, Raw, to_rgb
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
CHUNK = 4096
"""Files that are examined between two looks at the results: bounds the memory of a folder of millions."""


@dataclass
class _Listing:
    """What has been found so far."""

    total: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    skipped: list[dict[str, str]] = field(default_factory=list)
    foreign: int = 0


def load(settings: Dataset, paths: Paths) -> Raw:
    """The pictures under `settings.path`, which is relative to the project's root or absolute.

    Classes are the names of the sub-folders. Below a class folder, sub-folders and links are followed; hidden names and
    files with other suffixes than `SUFFIXES` are ignored. The digest is of relative names and the files' bytes.

    Raises:
        UserError: no folder, no images, fewer than two classes, a class without one readable image, or a test class
            that the training images do not have.
    """
    folder = paths.root / settings.path
    if not folder.is_dir():
        raise UserError(f"imagefolder: there is no folder {settings.path}; put FOLDER/<class>/* there or mend the path")
    top = _folders(folder)
    divided = any(name == "train" and _folders(path) for name, path in top)
    base = folder / "train" if divided else folder
    classes = [name for name, _ in _folders(base)]
    if not classes:
        raise UserError(f"imagefolder: {base} has no class folders; it needs FOLDER/<class>/* with images in them")
    if len(classes) == 1:
        raise UserError(f"only one class {_text(classes[0])!r} in {base}: an evaluation needs at least two")
    listing = _Listing()
    train = _read(folder, base, classes, listing)
    for label, name in enumerate(classes):
        if not (train.labels == label).any():
            raise UserError(
                f"class {_text(name)!r} has no readable image in {base / _text(name)}{_first(listing)};\n"
                "add one, or remove the class's folder"
            )
    test, notes = None, []
    if divided:
        others = [_text(name) for name, _ in top if name not in ("train", "test")]
        notes += [f"beside train and test, not read: {', '.join(others)}"] if others else []
        held_out = (folder / "test").is_dir()
        test_classes = [name for name, _ in _folders(folder / "test")] if held_out else []
        if held_out and not test_classes:
            raise UserError(
                f"{folder / 'test'} has no class folders; fill it, or remove it to have a test split cut off"
            )
        unknown = sorted(set(test_classes) - set(classes))
        if unknown:
            raise UserError(f"{folder / 'test'} has a class {_text(unknown[0])!r} that {base} does not have")
        if held_out:
            test = _read(folder, folder / "test", classes, listing)
            if not len(test.labels):
                raise UserError(f"no readable image in {folder / 'test'}{_first(listing)}")
    if listing.foreign:
        notes.append(f"{listing.foreign} files have no suffix of an image and were ignored")
    return Raw([_text(name) for name in classes], train, test, listing.total.hexdigest(), listing.skipped, notes)


def _read(folder: Path, base: Path, classes: list[str], listing: _Listing) -> Images:
    """The readable images of one split; what is met on the way goes into `listing`."""
    files: list[Path] = []
    labels: list[int] = []
    # A class may have no folder among the test images.
    folders = [(base / name, label) for label, name in enumerate(classes) if (base / name).is_dir()]
    found = [(path, label) for class_folder, label in folders for path in _files(class_folder, listing)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes, and hashlib hashes, without the GIL
        for start in range(0, len(found), CHUNK):
            chunk = found[start : start + CHUNK]
            for (path, label), (content, trouble) in zip(
                chunk, pool.map(_examine, [path for path, _ in chunk]), strict=True
            ):
                name = path.relative_to(folder)
                listing.total.update(os.fsencode(name.as_posix()) + b"\0" + content.encode())
                if trouble:
                    listing.skipped.append({"file": _text(name.as_posix()), "reason": trouble})
                else:
                    files.append(path)
                    labels.append(label)

    def read(position: int) -> np.ndarray:
        try:
            return _decode(files[position].read_bytes())
        except Exception as error:
            raise UserError(f"{files[position]} changed while it was being read: {error}; try again") from error

    return Images(np.asarray(labels, dtype=np.int64), read)


def _examine(path: Path) -> tuple[str, str | None]:
    """A file's sha256, and why it cannot be used (None: it can)."""
    if not path.is_file():
        return "", "not a file, or a link to nothing"
    try:
        content = path.read_bytes()
    except OSError as error:
        return "", str(error.strerror)
    name = hashlib.sha256(content).hexdigest()
    try:
        _decode(content)
    except UnidentifiedImageError:  # whose message holds an address in memory, which no manifest should
        return name, "not an image that Pillow knows"
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged bytes
        return name, str(error) or type(error).__name__
    return name, None


def _decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return to_rgb(image)


def _files(folder: Path, listing: _Listing) -> Iterator[Path]:
    """The image files below `folder`, sorted."""
    todo = [folder]
    found: list[Path] = []
    while todo:
        for path in _entries(todo.pop()):
            if path.is_dir():
                todo.append(path)
            elif path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                listing.foreign += 1
    yield from sorted(found, key=os.fsencode)


def _folders(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, sorted bytewise.

    A link to a folder is refused: DVC does not look behind it, so a changed image there would rerun nothing.
    """
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}; check the folder's permissions") from error
    for path in entries:
        if path.is_symlink() and path.is_dir():
            raise UserError(
                f"{path} is a link to a folder, and a change behind it would go unseen: put the images there "
                "themselves, or give a folder without such links as the data set's path"
            )
    return sorted(entries, key=os.fsencode)


def _text(name: str) -> str:
    """A name as text: what is not UTF-8 on the disk is shown as backslashes and hex digits."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _first(listing: _Listing) -> str:
    return f" (e.g. {listing.skipped[0]['file']}: {listing.skipped[0]['reason']})" if listing.skipped else ""
