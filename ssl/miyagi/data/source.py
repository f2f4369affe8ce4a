"""What every source gives: labelled images that are decoded one at a time, as 8-bit RGB, whatever they were."""

import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from miyagi.errors import UserError

Got = TypeVar("Got")

SILENCE = 20.0
"""Seconds without an answer after which a download is given up."""

CONVERTED = ("RGB", "RGBX", "CMYK", "YCbCr", "HSV")
ON_WHITE = ("1", "L", "LA", "P", "PA", "RGBA")


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        labels: N int64, positions in `Raw.classes`.
        read: position -> H x W x 3 uint8 RGB; may raise UserError where the file has changed since it was listed.
        several: N x C uint8, 1 for each label of an image; None: an image has one label.
    """

    labels: np.ndarray
    read: Callable[[int], np.ndarray]
    several: np.ndarray | None = None


@dataclass(frozen=True)
class Raw:
    """A data set as its source has it.

    Attributes:
        classes: names in the order of the labels; text from anywhere, so escape it where it is shown.
        train: the training images; all images where `test` is None.
        test: the source's own test images.
        digest: sha256 over everything that was read.
        val: its own validation images; None: they are cut from the training images.
        skipped: {"file", "reason"} of each image that could not be decoded; `file` is relative to the source.
        notes: what else a reader of the manifest should know.
    """

    classes: list[str]
    train: Images
    test: Images | None
    digest: str
    skipped: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    val: Images | None = None


def from_arrays(
    classes: list[str], train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray] | None
) -> Raw:
    """A data set that fits into memory.

    Args:
        classes: the class names.
        train: N x H x W (grey) or N x H x W x 3 uint8 images, and N labels.
        test: likewise, or None.
    """
    total = hashlib.sha256()
    for images, labels in (train, test) if test else (train,):
        total.update(np.ascontiguousarray(images).data)
        total.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return Raw(classes, _images(*train), _images(*test) if test else None, total.hexdigest())


def _images(images: np.ndarray, labels: np.ndarray) -> Images:
    def read(position: int) -> np.ndarray:
        image: np.ndarray = images[position]
        return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image

    return Images(labels.astype(np.int64), read)


def to_rgb(image: Image.Image) -> np.ndarray:
    """An image of any common mode as H x W x 3 uint8, turned the way its EXIF orientation says.

    Transparency is laid on white, which is the page that such drawings are made for. 16 bits are scaled to 8 by
    keeping the upper byte, as Pillow does for 16-bit colour; Pillow's own conversion of 16-bit grey would clip. CMYK
    is converted without a colour profile. Of an animation, the first frame is taken.

    Raises:
        ValueError: the mode has no agreed range (floating point, integers outside 16 bits) or no RGB meaning.
        OSError: the data are damaged.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integers outside 0..65535; save it with 8 or 16 bits a channel")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ON_WHITE or (image.mode == "RGB" and "transparency" in image.info):
        if image.mode in ("1", "L") and "transparency" not in image.info:
            return np.asarray(image.convert("RGB"))
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return np.asarray(Image.alpha_composite(page, layer).convert("RGB"))
    if image.mode in CONVERTED:
        return np.asarray(image.convert("RGB"))
    raise ValueError(f"mode {image.mode} is not supported; save it as 8-bit RGB")


def fetched(source: str, folder: Path, files: str, build: Callable[[bool], Got]) -> Got:
    """What `build` makes of the files in `folder`; they are downloaded first where they are missing.

    Args:
        source: the source's name, for the error message.
        folder: where torchvision keeps the files.
        files: what a user can put there by hand, for the error message.
        build: True -> download and read, False -> read; torchvision checks every file's md5 before it reads it.

    Raises:
        UserError: the files are neither there nor to be had.
    """
    try:
        return build(False)
    except (RuntimeError, OSError):
        pass  # torchvision's way to say that the files are missing or damaged
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return build(True)
    except (RuntimeError, OSError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:120]
        raise UserError(
            f"{source}: its files are not in {folder}, and the download failed ({reason});\n"
            f"connect to the network, or put {files} there"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
