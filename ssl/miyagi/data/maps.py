"""Pictures with a map of the same size each (labels or normals), side by side in two folders.

    FOLDER/images/*  FOLDER/masks/*                        or, with splits of its own:
    FOLDER/images/{train,val,test}/*  FOLDER/masks/{train,val,test}/*
    FOLDER/{train,val,test}/*  FOLDER/{train,val,test}annot/*      (CamVid's)

A picture and its map have the same name but for the suffix. Without test (or val) pictures, a share is cut off.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from miyagi.data.pictures import SUFFIXES, Listing, examined, text
from miyagi.data.scene import trouble
from miyagi.errors import UserError
from miyagi.paths import SPLITS

Read = Callable[[int], np.ndarray]


class Pairs:
    """The usable pairs of one split.

    Attributes:
        picture: position -> H x W x 3 uint8.
        files: the maps' files.
    """

    def __init__(self, picture: Read, files: list[Path]) -> None:
        self.picture, self.files = picture, files


def pairs(folder: Path, kind: str, decode: Callable[[Path], np.ndarray], listing: Listing) -> dict[str, Pairs]:
    """The pairs of each split; "train" alone where the folder has no splits.

    Args:
        folder: see above.
        kind: the maps' folder, "masks" or "normals".
        decode: a map's file -> H x W ...; ValueError says what is wrong with it.
        listing: takes what is met on the way: a picture without a map, or with one of another size, is skipped.

    Raises:
        UserError: the folder is laid out in another way.
    """
    return {
        split: _usable(folder, found, decode, listing, kind) for split, found in _places(folder, kind).items() if found
    }


def _places(folder: Path, kind: str) -> dict[str, tuple[Path, Path] | None]:
    images, maps = folder / "images", folder / kind
    if (images / "train").is_dir():
        return {split: (images / split, maps / split) if (images / split).is_dir() else None for split in SPLITS}
    if images.is_dir():
        return {"train": (images, maps)}
    if (folder / "trainannot").is_dir():
        own = {split: (folder / split, folder / f"{split}annot") for split in SPLITS}
        return {split: places if places[0].is_dir() else None for split, places in own.items()}
    raise UserError(
        f"{kind}: {folder} has neither images/ and {kind}/ nor train/ and trainannot/; put the pictures there"
    )


def _usable(
    folder: Path, places: tuple[Path, Path], decode: Callable[[Path], np.ndarray], listing: Listing, kind: str
) -> Pairs:
    images, maps = (_files(place) for place in places)
    kept, read = examined(folder, [(path, name) for name, path in images.items()], listing)
    positions, files = [], []
    for position, name in enumerate(kept):
        file = maps.get(name)
        reason = f"it has no {kind.removesuffix('s')} in {places[1].relative_to(folder)}" if file is None else None
        if file is not None:
            listing.total.update(os.fsencode(file.relative_to(folder).as_posix()) + b"\0" + _digest(file))
            try:
                reason = trouble(read(position).shape, decode(file).shape)
            except (OSError, ValueError) as error:
                reason = f"{text(file.name)}: {error}"
        if reason is None and file is not None:
            positions.append(position)
            files.append(file)
        else:
            shown = text(images[name].relative_to(folder).as_posix())
            listing.skipped.append({"file": shown, "reason": reason or ""})
    return Pairs(lambda position: read(positions[position]), files)


def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).hexdigest().encode()


def _files(folder: Path) -> dict[str, Path]:
    """Name without suffix, relative to `folder` -> the file; sorted bytewise, hidden ones left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return {os.fspath(path.relative_to(folder).with_suffix("")): path for path in sorted(found, key=os.fsencode)}


def open_map(file: Path) -> Image.Image:
    """A map's image, decoded; ValueError where it is none."""
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("not an image that Pillow can read") from error
