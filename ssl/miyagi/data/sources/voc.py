"""Pictures with boxes in the layout of PASCAL VOC (Everingham et al., IJCV 2010).

    FOLDER/JPEGImages/NAME.jpg  FOLDER/Annotations/NAME.xml  FOLDER/ImageSets/Main/{train,val,test}.txt

Without ImageSets (or without its test.txt or val.txt) a share is cut off; without train.txt, trainval.txt takes its
place. VOC counts pixels from 1 and the last one in: its box (1, 1, w, h) is (0, 0, w, h) here. Objects that are marked
as difficult count neither as found nor as missed, and are not trained on.
"""

import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from miyagi.data.pictures import SUFFIXES, Listing, examined, text
from miyagi.data.scene import Annotated, Scene, Scenes, trouble
from miyagi.errors import UserError
from miyagi.paths import SPLITS, Paths
from miyagi.settings import AnnotatedDataset

SLACK = 1.0
"""Pixels that a box may reach over the border without a word: tools differ in where they count from."""


@dataclass(frozen=True)
class Object:
    """One object: its class, its box (x1, y1, x2, y2) and whether it is difficult."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass
class Odd:
    """What was met in the annotations: how often, and the first file."""

    outside: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        lines = {
            "box(es) reach outside of their picture and were cut": self.outside,
            "box(es) lie outside of their picture or are empty and were left out": self.gone,
            "picture(s) have no object; they are kept, as nothing but background": self.empty,
        }
        return [f"{len(found)} {line}, the first in {found[0]}" for line, found in lines.items() if found]


def load(settings: AnnotatedDataset, paths: Paths) -> Annotated:
    """The pictures and boxes under `settings.path`; the digest is of all names and bytes.

    Raises:
        UserError: no such folders, a list that names a picture twice, no object at all in the training pictures, or a
            class that they do not have.
    """
    folder = paths.root / settings.path
    if not (folder / "JPEGImages").is_dir() or not (folder / "Annotations").is_dir():
        raise UserError(f"voc: {folder} has no JPEGImages/ and Annotations/; put the pictures and the XML files there")
    listing, odd = Listing(), Odd()
    found = {split: _scenes(folder, names, listing, odd) for split, names in _lists(folder).items()}
    classes = sorted({thing.name for objects in found["train"][0] for thing in objects})
    if not classes:
        raise UserError(f"voc: no object in the training pictures of {folder}{listing.first}")
    for split, (all_objects, _) in found.items():
        unknown = sorted({thing.name for objects in all_objects for thing in objects} - set(classes))
        if unknown:
            raise UserError(f"voc: {folder}: class {text(unknown[0])!r} is in {split} but not in the training pictures")
    parts = {split: _read(classes, *own) for split, own in found.items()}
    return Annotated(
        {"boxes": [text(name) for name in classes]}, parts["train"], parts.get("val"), parts.get("test"),
        listing.total.hexdigest(), listing.skipped, odd.notes(),
    )  # fmt: skip


def _lists(folder: Path) -> dict[str, list[str]]:
    """Split -> names of its pictures."""
    sets = folder / "ImageSets" / "Main"
    lists = {split: sets / f"{split}.txt" for split in SPLITS}
    if not lists["train"].is_file() and (sets / "trainval.txt").is_file():
        lists = {"train": sets / "trainval.txt", "test": lists["test"]}
    found = {}
    for split, file in lists.items():
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            found[split] = [line.split()[0] for line in lines if line.strip()]
    if "train" not in found:
        return {"train": sorted((path.stem for path in _pictures(folder).values()), key=os.fsencode)}
    ((name, times),) = Counter(name for names in found.values() for name in names).most_common(1) or [("", 0)]
    if times > 1:
        raise UserError(f"voc: {sets}: {text(name)!r} stands there {times} times; a picture is in one split, once")
    return found


def _pictures(folder: Path) -> dict[str, Path]:
    files = (folder / "JPEGImages").iterdir()
    return {path.stem: path for path in sorted(files, key=os.fsencode) if path.suffix.lower() in SUFFIXES}


def _scenes(folder: Path, names: list[str], listing: Listing, odd: Odd) -> tuple[list[list[Object]], Scenes]:
    """Each usable picture's objects, and the pictures without them."""
    pictures = _pictures(folder)
    found = [(pictures.get(name, folder / "JPEGImages" / f"{name}.jpg"), name) for name in names]
    kept, read = examined(folder, found, listing)
    positions, objects = [], []
    for position, name in enumerate(kept):
        file = folder / "Annotations" / f"{name}.xml"
        shape = read(position).shape
        try:
            content = file.read_bytes()
            listing.total.update(os.fsencode(file.name) + b"\0" + content)
            own = [_cut(thing, shape, text(file.name), odd) for thing in _parse(content)]
            reason = trouble(shape)
        except FileNotFoundError:
            reason = f"it has no annotation {text(file.name)}"
        except (OSError, ElementTree.ParseError, ValueError) as error:
            reason = f"{text(file.name)}: {error}"
        if reason is None:
            positions.append(position)
            objects.append([thing for thing in own if thing is not None])
            if not objects[-1]:
                odd.empty.append(text(file.name))
        else:
            listing.skipped.append({"file": text(f"JPEGImages/{pictures[name].name}"), "reason": reason})
    return objects, Scenes(len(positions), lambda i: Scene(read(positions[i])))


def _parse(content: bytes) -> list[Object]:
    found = []
    for entry in ElementTree.fromstring(content).iter("object"):
        name, box = entry.findtext("name", "").strip(), entry.find("bndbox")
        if not name or box is None:
            raise ValueError("an object without a name or without a bndbox")
        x1, y1, x2, y2 = (float(box.findtext(side, "nan")) for side in ("xmin", "ymin", "xmax", "ymax"))
        if not np.isfinite([x1, y1, x2, y2]).all():
            raise ValueError(f"the box of {name!r} lacks a side")
        found.append(Object(name, (x1 - 1, y1 - 1, x2, y2), entry.findtext("difficult", "0").strip() == "1"))
    return found


def _cut(thing: Object, shape: tuple[int, ...], file: str, odd: Odd) -> Object | None:
    """The object with its box inside of the picture; None where nothing of it is."""
    height, width = shape[:2]
    sides = np.array([width, height, width, height], dtype=np.float64)
    box = np.clip(thing.box, 0, sides)
    if (box[2:] - box[:2] < 1).any():
        odd.gone.append(file)
        return None
    if np.abs(box - thing.box).max() > SLACK:
        odd.outside.append(file)
    x1, y1, x2, y2 = box.tolist()
    return Object(thing.name, (x1, y1, x2, y2), thing.difficult)


def _read(classes: list[str], objects: list[list[Object]], pictures: Scenes) -> Scenes:
    def read(position: int) -> Scene:
        own = objects[position]
        return Scene(
            pictures.read(position).image,
            np.array([thing.box for thing in own], np.float32).reshape(-1, 4),
            np.array([classes.index(thing.name) for thing in own], np.int64),
            np.array([thing.difficult for thing in own], bool),
        )

    return Scenes(pictures.total, read)
