"""Your own pictures with a mask each, one label a pixel: two folders side by side, see data/maps.py.

A mask is a PNG (or any lossless image) in grey or with a palette; its pixels are label numbers. `FOLDER/classes.txt`
names the labels 0, 1, 2, ... line by line; without it every number in the training masks is a class. `ignore` is the
number of pixels that do not count (CamVid's void: 11; VOC's border: 255).
"""

from pathlib import Path

import numpy as np

from miyagi.data.maps import Pairs, open_map, pairs
from miyagi.data.pictures import Listing
from miyagi.data.scene import IGNORED, Annotated, Scene, Scenes
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import AnnotatedDataset

NAMES = "classes.txt"


def load(settings: AnnotatedDataset, paths: Paths) -> Annotated:
    """The pairs under `settings.path`; the digest is of all names and bytes.

    Raises:
        UserError: no such folders, a mask with a label that nobody named, fewer than two labels.
    """
    folder = paths.root / settings.path
    listing = Listing()
    found = pairs(folder, "masks", _decode, listing)
    seen = {split: [np.unique(_decode(file)) for file in own.files] for split, own in found.items()}
    names = _names(folder / NAMES)
    if names is None:
        numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *seen["train"]]))
        known = [int(number) for number in numbers if number != settings.ignore]
        names = [str(number) for number in known]
    else:
        known = list(range(len(names)))
        listing.total.update("\n".join(names).encode())
    if not 2 <= len(known) <= IGNORED:
        raise UserError(
            f"masks: {len(known)} label(s) in {folder}; segmentation takes 2 to {IGNORED} (`ignore` is none of them)"
        )
    for split, values in seen.items():
        for file, own in zip(found[split].files, values, strict=True):
            unknown = sorted(set(own.tolist()) - {*known, settings.ignore})
            if unknown:
                where = folder / NAMES if (folder / NAMES).is_file() else "the training masks"
                raise UserError(
                    f"{file}: label {unknown[0]} is not in {where}; name it there, or give it to `ignore` "
                    f"(now {settings.ignore})"
                )
    table = np.full(max(*known, settings.ignore or 0) + 1, IGNORED, np.uint8)
    table[known] = np.arange(len(known))
    if settings.ignore is not None:
        table[settings.ignore] = IGNORED

    def scenes(own: Pairs | None) -> Scenes | None:
        if own is None:
            return None
        return Scenes(len(own.files), lambda i: Scene(own.picture(i), mask=table[_decode(own.files[i])]))

    train = scenes(found["train"])
    assert train is not None
    return Annotated(
        {"masks": names}, train, scenes(found.get("val")), scenes(found.get("test")),
        listing.total.hexdigest(), listing.skipped,
    )  # fmt: skip


def _decode(file: Path) -> np.ndarray:
    """H x W int64 labels."""
    image = open_map(file)
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(f"a mask has one label a pixel (grey or palette), this one is {image.mode}")
    return np.asarray(image).astype(np.int64)


def _names(file: Path) -> list[str] | None:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"masks: cannot read {file}: {error}") from error
