"""Your own pictures: `FOLDER/train/<class>/*` and `FOLDER/test/<class>/*`, or one `FOLDER/<class>/*` tree.

Without a test folder, `test_fraction` of the images is cut off. Names are compared as bytes, so the order depends on
no locale. Every image is decoded once before anything is counted: a damaged one is left out, and the manifest says so.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from miyagi.data.pictures import SUFFIXES, Listing, examined, text
from miyagi.data.source import Images, Raw
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset


def load(settings: Dataset, paths: Paths) -> Raw:
    """The pictures under `settings.path`, which is relative to the project's root or absolute.

    Classes are the names of the sub-folders. Below a class folder, sub-folders and links are followed; hidden names and
    files with other suffixes than `SUFFIXES` are ignored. The digest is of relative names and the files' bytes.

    With `settings.disjoint`, the folders train, val (if there is one) and test have classes of their own, as few-shot
    learning on new classes wants it; labels count through all of them.

    Raises:
        UserError: no folder, no images, fewer than two classes, a class without one readable image, a test class that
            the training images do not have, or, where classes are to be disjoint, one that they have.
    """
    folder = paths.root / settings.path
    if not folder.is_dir():
        raise UserError(f"imagefolder: there is no folder {settings.path}; put FOLDER/<class>/* there or mend the path")
    top = _folders(folder)
    divided = any(name == "train" and _folders(path) for name, path in top)
    base = folder / "train" if divided else folder
    own = {"train": [name for name, _ in _folders(base)]}
    if not own["train"]:
        raise UserError(f"imagefolder: {base} has no class folders; it needs FOLDER/<class>/* with images in them")
    if len(own["train"]) == 1:
        raise UserError(f"only one class {text(own['train'][0])!r} in {base}: an evaluation needs at least two")
    read = ("val", "test") if settings.disjoint else ("test",)
    for split in read if divided else ():
        if (folder / split).is_dir():
            own[split] = [name for name, _ in _folders(folder / split)]
            if not own[split]:
                raise UserError(
                    f"{folder / split} has no class folders; fill it, or remove it to have a {split} split cut off"
                )
    _check_classes(folder, base, own, settings.disjoint)
    classes = sorted(set().union(*own.values()), key=os.fsencode)
    listing = Listing()
    found = {split: _read(folder, base if split == "train" else folder / split, classes, listing) for split in own}
    for split in own if settings.disjoint else ("train",):
        for name in own[split]:
            if not (found[split].labels == classes.index(name)).any():
                place = (base if split == "train" else folder / split) / text(name)
                raise UserError(
                    f"class {text(name)!r} has no readable image in {place}{listing.first};\n"
                    "add one, or remove the class's folder"
                )
    if "test" in own and not len(found["test"].labels):
        raise UserError(f"no readable image in {folder / 'test'}{listing.first}")
    notes = []
    others = [text(name) for name, _ in top if name not in own] if divided else []
    if others:
        notes.append(
            f"beside {' and '.join(split for split in ('train', *read) if split in own)}, not read: {', '.join(others)}"
        )
    if listing.foreign:
        notes.append(f"{listing.foreign} files have no suffix of an image and were ignored")
    return Raw(
        [text(name) for name in classes],
        found["train"],
        found.get("test"),
        listing.total.hexdigest(),
        listing.skipped,
        notes,
        found.get("val"),
    )


def _check_classes(folder: Path, base: Path, own: dict[str, list[str]], disjoint: bool) -> None:
    """Whether the folders' classes are as they should be: those of train, or where `disjoint` is set, others."""
    if not disjoint:
        unknown = sorted(set(own.get("test", ())) - set(own["train"]))
        if unknown:
            raise UserError(
                f"{folder / 'test'} has a class {text(unknown[0])!r} that {base} does not have; if all are new on "
                "purpose, as for few-shot learning, set `disjoint: true`"
            )
        return
    if "test" not in own:
        raise UserError(f"imagefolder: disjoint: true needs {folder}/train/<class>/* and {folder}/test/<class>/*")
    for one, other in itertools.combinations(own, 2):
        shared = sorted(set(own[one]) & set(own[other]))
        if shared:
            raise UserError(
                f"{folder}: class {text(shared[0])!r} is in {one} and in {other}; disjoint: true says that none is"
            )


def _read(folder: Path, base: Path, classes: list[str], listing: Listing) -> Images:
    """The readable images of one split; what is met on the way goes into `listing`."""
    # A class may have no folder among the test images.
    folders = [(base / name, label) for label, name in enumerate(classes) if (base / name).is_dir()]
    found = [(path, label) for class_folder, label in folders for path in image_files(class_folder, listing)]
    labels, read = examined(folder, found, listing)
    return Images(np.asarray(labels, dtype=np.int64), read)


def image_files(folder: Path, listing: Listing) -> Iterator[Path]:
    """The image files below `folder`, sorted; those of other kinds are counted in `listing`."""
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
