"""Image files of a user's: each is read and decoded once before anything is counted, and again when it is asked for."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from miyagi.data.source import to_rgb
from miyagi.errors import UserError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Of files that are taken for images."""
CHUNK = 4096
"""Files that are examined between two looks at the results: bounds the memory of a folder of millions."""
About = TypeVar("About")


@dataclass
class Listing:
    """What has been found so far.

    Attributes:
        total: over the relative names and the bytes of all files.
        skipped: see `Raw.skipped`.
        foreign: files that are no images by their names.
    """

    total: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    skipped: list[dict[str, str]] = field(default_factory=list)
    foreign: int = 0

    @property
    def first(self) -> str:
        """The first file that was left out and why, as a part of an error message."""
        return f" (e.g. {self.skipped[0]['file']}: {self.skipped[0]['reason']})" if self.skipped else ""


def examined(
    folder: Path, found: Sequence[tuple[Path, About]], listing: Listing
) -> tuple[list[About], Callable[[int], np.ndarray]]:
    """The readable ones among `found`: what belongs to each, and a function from its position to its pixels.

    Args:
        folder: names are relative to it.
        found: files, each with what belongs to it, e.g. its label.
        listing: takes what is met on the way.
    """
    files: list[Path] = []
    kept: list[About] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes, and hashlib hashes, without the GIL
        for start in range(0, len(found), CHUNK):
            chunk = found[start : start + CHUNK]
            results = pool.map(_examine, [path for path, _ in chunk])
            for (path, about), (content, trouble) in zip(chunk, results, strict=True):
                name = path.relative_to(folder)
                listing.total.update(os.fsencode(name.as_posix()) + b"\0" + content.encode())
                if trouble:
                    listing.skipped.append({"file": text(name.as_posix()), "reason": trouble})
                else:
                    files.append(path)
                    kept.append(about)

    def read(position: int) -> np.ndarray:
        try:
            return _decode(files[position].read_bytes())
        except Exception as error:
            raise UserError(f"{files[position]} changed while it was being read: {error}; try again") from error

    return kept, read


def text(name: str) -> str:
    """A name as text: what is not UTF-8 on the disk is shown as backslashes and hex digits."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


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
