"""A beton, mapped into memory: equal squares gathered in one step, any other image decoded once and cut N times.

The file format is FFCV's, and so is the JPEG decoder; its loader is not used (docs/adr/0006-reading-betons.md). What
is read here lies in pages of the file, which the kernel may drop: only what is returned takes memory.
"""

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from miyagi.errors import UserError

# Version 2 of FFCV's format: a header, the fields' descriptions, a row a sample, pages of pixels, a table of where the
# pixels are. tests/data/test_decode.py compares these types with the installed FFCV's.
HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")], align=True
)
FIELD = np.dtype([("kind", "u1"), ("name", "S16"), ("arguments", "V1024")])
FIELDS = [(2, b"image"), (1, b"label"), (1, b"index")]
PICTURE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("start", "<u8")])
SAMPLE = np.dtype([("image", PICTURE), ("label", "<i8"), ("index", "<i8")], align=True)
PLACE = np.dtype([("sample", "<u8"), ("start", "<u8"), ("size", "<u8")])
JPEG, RAW = 0, 1


class Beton:
    """The images of one file: `beton[i]` is image i, H x W x 3 uint8; a raw one is a read-only view of the file.

    Attributes:
        path: the file.
        side: of the images where all are raw squares of one size, else None.

    Raises:
        UserError: the file is missing or not a whole beton.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
            header = self._bytes[: HEADER.itemsize].view(HEADER)[0]
            fields = self._rows(FIELD, HEADER.itemsize, len(FIELDS))
            if (header["version"], header["fields"]) != (2, len(FIELDS)):
                raise ValueError("not a beton of images and labels")
            if list(zip(fields["kind"], fields["name"], strict=True)) != FIELDS:
                raise ValueError("not a beton of images and labels")
            samples, table = int(header["samples"]), int(header["table"])
            self._samples = self._rows(SAMPLE, HEADER.itemsize + fields.nbytes, samples)
            self._places = self._rows(PLACE, table, samples)
            if not samples or table + self._places.nbytes != len(self._bytes):
                raise ValueError("not a whole beton")
            self._check()
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; run `dvc repro`") from error
        self._pages = self._regular(int(header["page"]))
        self.side = None if self._pages is None else int(self._samples["image"]["width"][0])

    def _rows(self, kind: np.dtype[Any], start: int, count: int) -> np.ndarray:
        found = self._bytes[start : start + count * kind.itemsize]
        if len(found) != count * kind.itemsize:
            raise ValueError("not a whole beton")
        return found.view(kind)

    def _check(self) -> None:
        pictures, places = self._samples["image"], self._places
        sizes = 3 * pictures["width"].astype(np.int64) * pictures["height"]
        raw = pictures["mode"] == RAW
        if not (
            np.array_equal(pictures["start"], places["start"])
            and (sizes > 0).all()
            and (sizes[raw] == places["size"][raw]).all()
            and (places["start"] + places["size"]).max() <= len(self._bytes)
        ):
            raise ValueError("its tables contradict each other")

    def _regular(self, page: int) -> np.ndarray | None:
        """The file as pages x images x bytes, where all are raw squares of one size, laid one after the other."""
        pictures, places = self._samples["image"], self._places
        side, start = int(pictures["width"][0]), int(places["start"][0])
        wanted = (("mode", RAW), ("width", side), ("height", side))
        size = 3 * side * side
        per_page = page // size
        if not per_page or not all((pictures[name] == value).all() for name, value in wanted):
            return None
        row, pages = np.arange(len(self)), -(-len(self) // per_page)
        expected = start + row // per_page * page + row % per_page * size
        if start + pages * page > len(self._bytes) or not np.array_equal(places["start"], expected):
            return None  # whoever wrote this, one process of FFCV's writer did not
        return np.lib.stride_tricks.as_strided(
            self._bytes[start:], (pages, per_page, size), (page, size, 1), writeable=False
        )

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def labels(self) -> np.ndarray:
        """N int64."""
        return self.labels_of(slice(None))

    def labels_of(self, rows: Any) -> np.ndarray:
        """The labels of some images, int64."""
        labels: np.ndarray = self._samples["label"][rows].astype(np.int64)
        return labels

    def shapes(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths of some images, int64."""
        pictures = self._samples["image"][rows]
        return pictures["height"].astype(np.int64), pictures["width"].astype(np.int64)

    def __getitem__(self, position: int) -> np.ndarray:
        picture, place = self._samples["image"][position], self._places[position]
        start, height, width = int(place["start"]), int(picture["height"]), int(picture["width"])
        stored: np.ndarray = self._bytes[start : start + int(place["size"])]
        if picture["mode"] == RAW:
            return stored.reshape(height, width, 3)
        image = np.empty((height, width, 3), np.uint8)
        whole = (height, width, 0, 0, 1, 1, False, False)
        if _imdecode()(stored.ctypes.data, stored.size, height, width, image.ctypes.data, *whole):
            raise UserError(f"cannot read {self.path}: image {position} is damaged; delete it and run `dvc repro`")
        return image

    def squares(self, rows: np.ndarray) -> np.ndarray:
        """The images `rows` (N int64), N x 3 x side x side uint8, where all are raw squares of one size."""
        if self._pages is None or self.side is None:
            raise ValueError(f"{self.path}: the images differ in size")
        per_page = self._pages.shape[1]
        pixels = self._pages[rows // per_page, rows % per_page].reshape(len(rows), self.side**2, 3)
        return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(len(rows), 3, self.side, self.side)

    def chunks(self, images: int) -> Iterator[np.ndarray]:
        """All images in order, in stacks of at most `images` x H x W x 3; alone, where they differ in size."""
        step = 1 if self.side is None else images
        for start in range(0, len(self), step):
            yield np.stack([self[i] for i in range(start, min(start + step, len(self)))])


@cache
def _imdecode() -> Any:
    """FFCV's JPEG decoder (libturbojpeg), without `import ffcv`, which takes seconds; ctypes lets go of the GIL."""
    spec = find_spec("ffcv")
    (folder,) = spec.submodule_search_locations or [""] if spec else [""]
    function = ctypes.CDLL(str(next(Path(folder).glob("_libffcv*.so")))).imdecode
    function.argtypes = [ctypes.c_void_p, ctypes.c_uint64, *[ctypes.c_uint32] * 2, ctypes.c_void_p]
    function.argtypes += [*[ctypes.c_uint32] * 6, *[ctypes.c_bool] * 2]
    return function


def centres(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The largest centred square of each image, as boxes (top, left, height, width; N x 4 int64)."""
    side = np.minimum(heights, widths)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)


def cut(image: np.ndarray, box: Sequence[int], size: int) -> np.ndarray:
    """A box of an image, resized to `size` x `size`: bilinear, with the filter widened where it shrinks.

    That is the filter of the batched augmentation (data/augment.py), of Pillow and of torchvision's `antialias=True`;
    FFCV's own resize enlarges in blocks.

    Args:
        image: H x W x 3 uint8.
        box: top, left, height, width, in pixels.
        size: side of the result.

    Returns:
        3 x size x size uint8.
    """
    top, left, height, width = box
    # A copy: the kernel is quick on whole images only, and torch takes no view of a read-only file.
    crop = torch.from_numpy(np.array(image[top : top + height, left : left + width])).permute(2, 0, 1)
    if (height, width) != (size, size):
        crop = interpolate(crop[None], (size, size), mode="bilinear", antialias=True)[0]
    return crop.numpy()


def read_images(path: Path, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The images at `indices` (None: all) of a beton, N x H x W x 3 uint8, and their labels, N int64.

    Images that differ in size come as centre squares, as large as the smallest of them.

    Raises:
        UserError: the file is missing or broken.
    """
    beton = Beton(path)
    chosen = np.arange(len(beton)) if indices is None else np.asarray(indices, dtype=np.int64)
    if not len(chosen):
        raise ValueError("no indices")
    heights, widths = beton.shapes(chosen)
    if (heights == heights[0]).all() and (widths == widths[0]).all():
        return np.stack([beton[int(i)] for i in chosen]), beton.labels_of(chosen)
    boxes = centres(heights, widths)
    size = int(boxes[:, 2].min())
    images = [cut(beton[int(i)], box, size).transpose(1, 2, 0) for i, box in zip(chosen, boxes.tolist(), strict=True)]
    return np.stack(images), beton.labels_of(chosen)
