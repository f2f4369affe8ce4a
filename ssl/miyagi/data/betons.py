"""Images -> FFCV betons, and back: one file a split, byte for byte the same whenever the images are.

FFCV's own writer forks workers and waits for them for ever where one dies (a damaged image, a full disk), and its
unbuffered file may write less than it was given without a word. Ours does the work in this process, and compares what
is on the disk with what it meant to write before the file gets its name.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from miyagi.data.threads import import_ffcv
from miyagi.errors import UserError
from miyagi.files import replacing

PAGE = 8 << 20
"""Bytes of a page, FFCV's default; no image may be larger than the page that it lies on."""


class Pictures(Protocol):
    """An array of N x H x W x 3 uint8, or anything that gives equally large images by position."""

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
    image = image[top : top + side, left : left + side]
    if side == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def write_beton(path: Path, images: Pictures, labels: np.ndarray) -> None:
    """Write fields `image` (raw RGB), `label` and `index` (the position in this file) to `path`, whole or not at all.

    Args:
        path: the file; its folder is made.
        images: N images of one size, H x W x 3 uint8; read one at a time, in order.
        labels: N integers.

    Raises:
        UserError: the disk is full or the folder cannot be written.
        ValueError: no images, or images of different sizes.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{path}: {len(images)} images and {len(labels)} labels")
    shape = images[0].shape
    page = max(PAGE, 1 << (int(np.prod(shape)) - 1).bit_length())

    class Rows:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, position: int) -> tuple[np.ndarray, int, int]:
            image = images[position]
            if image.shape != shape:
                raise ValueError(f"{path}: image {position} is {image.shape}, the first one {shape}")
            return image, int(labels[position]), int(position)

    with replacing(path) as temporary:
        writer = _writer()(str(temporary), _fields(), page_size=page, num_workers=1)
        writer.from_indexed_dataset(Rows())
        _verify(path, temporary, writer)


def _fields() -> dict[str, Any]:
    import_ffcv()
    from ffcv.fields import IntField, RGBImageField

    return {"image": RGBImageField(write_mode="raw"), "label": IntField(), "index": IntField()}


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
                for chunk in queue_content:
                    for target, source in chunk:
                        handle_sample(
                            dataset[source], target, self.metadata_type.names, metadata, allocator, self.fields
                        )
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


class Beton:
    """A beton of raw images, mapped into memory: `beton[i]` is image i, H x W x 3 uint8, without a copy.

    Raises:
        UserError: the file is missing or not a whole beton of raw images.
    """

    def __init__(self, path: Path) -> None:
        import_ffcv()
        from ffcv.reader import Reader

        try:
            reader = Reader(str(path))
            self._pictures = reader.metadata["f0"]
            self.labels = reader.metadata["f1"].astype(np.int64)
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
            end = int(reader.header["alloc_table_ptr"]) + reader.alloc_table.nbytes
            if not len(self.labels) == reader.num_samples or end != os.path.getsize(path) or end == 0:
                raise ValueError("not a whole beton")
        except (OSError, AssertionError, IndexError, KeyError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; run `dvc repro`") from error

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> np.ndarray:
        _, width, height, start = (int(value) for value in self._pictures[position])
        return self._bytes[start : start + height * width * 3].reshape(height, width, 3)

    def chunks(self, images: int) -> Iterator[np.ndarray]:
        """All images in order, as copies of at most `images` x H x W x 3."""
        for start in range(0, len(self), images):
            yield np.stack([self[i] for i in range(start, min(start + images, len(self)))])


def read_images(path: Path, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The images at `indices` (None: all) of a beton, N x H x W x 3 uint8, and their labels, N int64.

    Raises:
        UserError: the file is missing or broken.
    """
    beton = Beton(path)
    chosen = np.arange(len(beton)) if indices is None else np.asarray(indices, dtype=np.int64)
    if not len(chosen):
        raise ValueError("no indices")
    return np.stack([beton[int(i)] for i in chosen]), beton.labels[chosen]
