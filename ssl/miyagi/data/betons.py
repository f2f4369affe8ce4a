"""Images -> FFCV betons: one file a split, byte for byte the same whenever the images are. data/decode.py reads them.

FFCV's own writer forks workers and waits for them for ever where one dies (a damaged image, a full disk), and its
unbuffered file may write less than it was given without a word. Ours does the work in this process, and compares what
is on the disk with what it meant to write before the file gets its name.
"""

from functools import cache
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from miyagi.data.decode import Beton, read_images
from miyagi.data.threads import import_ffcv
from miyagi.errors import UserError
from miyagi.files import replacing
from miyagi.progress import progress

__all__ = ["Beton", "Pictures", "fit", "read_images", "square", "write_beton"]

PAGE = 8 << 20
"""Bytes of a page, FFCV's default; no image may be larger than the page that it lies on."""
ASPECT = 4
"""The longest that a stored image may be, in terms of its shorter side; what is longer is cropped to its centre."""
RAW_BYTES = 3 * 64 * 64
"""Up to here an image is stored as it is, where JPEG is allowed: there is little to save, and much to spoil."""


class Pictures(Protocol):
    """An array of N x H x W x 3 uint8, or anything that gives images by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> np.ndarray: ...


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The largest centred square of an image, resized to `size` x `size` (bicubic, antialiased where it shrinks).

    Args:
        image: H x W x 3 uint8.
        size: side in pixels; an image of that size is returned as it is.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    # Cropped before it is resized: resized first, an image of 1 x 50,000 pixels would fill the memory.
    return _resized(image[top : top + side, left : left + side], size, size)


def fit(image: np.ndarray, shorter: int) -> np.ndarray:
    """An image in its own shape, shrunk (as `square` does it) until its shorter side is at most `shorter` pixels.

    Args:
        image: H x W x 3 uint8; never enlarged.
        shorter: pixels.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = max(0, (height - ASPECT * side) // 2), max(0, (width - ASPECT * side) // 2)
    image = image[top : top + ASPECT * side, left : left + ASPECT * side]
    if side <= shorter:
        return image
    height, width = (round(length * shorter / side) for length in image.shape[:2])
    return _resized(image, height, width)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def write_beton(
    path: Path,
    images: Pictures,
    labels: np.ndarray,
    *,
    largest: int | None = None,
    jpeg_quality: int | None = None,
) -> None:
    """Write fields `image` (RGB), `label` and `index` (the position in this file) to `path`, whole or not at all.

    Args:
        path: the file; its folder is made.
        images: N images, H x W x 3 uint8; read one at a time, in order.
        labels: N integers.
        largest: bytes of the largest image, where they differ in size; None: all are as large as the first.
        jpeg_quality: images of more than RAW_BYTES become JPEGs of this quality (4:2:0); None: raw pixels.

    Raises:
        UserError: the disk is full or the folder cannot be written.
        ValueError: no images, an image larger than `largest`, or images of different sizes without it.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{path}: {len(images)} images and {len(labels)} labels")
    shape = images[0].shape
    page = max(PAGE, 1 << ((largest or int(np.prod(shape))) - 1).bit_length())

    class Rows:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, position: int) -> tuple[np.ndarray, int, int]:
            image = images[position]
            if largest is None and image.shape != shape:
                raise ValueError(f"{path}: image {position} is {image.shape}, the first one {shape}")
            if largest is not None and image.nbytes > largest:
                raise ValueError(f"{path}: image {position} has {image.nbytes} bytes, more than {largest}")
            return image, int(labels[position]), int(position)

    with replacing(path) as temporary:
        writer = _writer()(str(temporary), _fields(jpeg_quality), page_size=page, num_workers=1)
        writer.from_indexed_dataset(Rows())
        _verify(path, temporary, writer)


def _fields(jpeg_quality: int | None) -> dict[str, Any]:
    import_ffcv()
    from ffcv.fields import IntField, RGBImageField

    image = RGBImageField(write_mode="raw")
    if jpeg_quality is not None:
        image = RGBImageField(write_mode="smart", smart_threshold=RAW_BYTES, jpeg_quality=jpeg_quality)
    return {"image": image, "label": IntField(), "index": IntField()}


@cache
def _writer() -> Any:
    import_ffcv()
    from ffcv.memory_allocator import MemoryAllocator
    from ffcv.writer import DatasetWriter, handle_sample

    class Writer(DatasetWriter):
        """FFCV's writer without its processes; `allocations` is what should be on the disk in the end."""

        allocations: list[tuple[int, int, int]]
        metadata_sm: Any

        def _write_common(self, num_samples: int, queue_content: Any, work_fn: Any, extra_worker_args: Any) -> None:
            self.num_samples = num_samples
            self.prepare()
            # Nobody shares this memory, and a container's /dev/shm may be small: plain memory takes its place.
            self.metadata_sm.close()
            self.metadata_sm.unlink()
            memory = bytearray(num_samples * self.metadata_type.itemsize)
            self.metadata_sm = SimpleNamespace(buf=memory)
            metadata = np.frombuffer(memory, dtype=self.metadata_type)
            allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
            (dataset,) = extra_worker_args
            # Buffered, unlike FFCV's: a write is whole or raises. Not `with allocator`, which on an error writes again.
            with open(self.fname, "ab") as allocator.fp:
                samples = chain.from_iterable(queue_content)
                for target, source in progress(samples, num_samples, "writing images", "img"):
                    handle_sample(dataset[source], target, self.metadata_type.names, metadata, allocator, self.fields)
                allocator.flush_page()
            self.allocations = allocator.allocations
            self.pages_end = allocator.offset + allocator.next_page_written.value * self.page_size
            self.finalize(self.allocations)

    return Writer


def _verify(path: Path, written: Path, writer: Any) -> None:
    """Compare the file's size and tables with what the writer meant to write."""
    from ffcv.reader import Reader

    try:
        reader = Reader(str(written))
        meant = np.array(writer.allocations, dtype=np.uint64).reshape(-1, 3)
        table = np.stack([reader.alloc_table[name] for name in ("sample_id", "ptr", "size")], axis=1)
        whole = (
            int(reader.header["alloc_table_ptr"]) == writer.pages_end
            and written.stat().st_size == writer.pages_end + reader.alloc_table.nbytes
            and np.array_equal(table, meant)
            and int(reader.num_samples) == len(reader.metadata) == len(meant)
            and np.array_equal(reader.metadata["f0"]["data_ptr"], meant[:, 1])
        )
    except (AssertionError, IndexError, KeyError, ValueError):
        whole = False
    if not whole:
        raise UserError(f"cannot write {path}: the disk kept less than was written; free some space and try again")
