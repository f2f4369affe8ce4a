"""Betons -> batches of uint8 images, in an order of our own, shared out among processes without overlap.

The order of epoch e is a hash of (seed, e) and needs no history. FFCV's is `default_rng(seed + epoch)`, so neighbouring
seeds share permutations, a resumed loader starts at epoch 0 again, and its shares for several processes repeat images.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from miyagi.data.decode import Beton, centres, cut
from miyagi.data.rng import Key, permutation
from miyagi.data.threads import waited
from miyagi.errors import UserError

PIECES = 4
"""Parts of a batch for each decoding thread: images differ in cost, and nobody should wait for one long part."""


@dataclass(frozen=True)
class Raw:
    """One decoded batch.

    Attributes:
        image: N x 3 x S x S uint8: the stored squares; of other images the centre squares, or the first of `views`.
        label: N int64.
        index: N int64, positions in the file.
        views: N x 3 x s x s uint8 for each cut that was asked for; empty where the images are equal squares, which are
            cheaper cut in batches (data/augment.py).
    """

    image: Tensor
    label: Tensor
    index: Tensor
    views: tuple[Tensor, ...] = ()

    def to(self, device: torch.device) -> "Raw":
        """The batch on another device."""
        views = tuple(view.to(device) for view in self.views)
        image = views[0] if views else self.image.to(device)
        return Raw(image, self.label.to(device), self.index.to(device), views)


@dataclass(frozen=True)
class Cut:
    """One crop of every image.

    Attributes:
        size: side of the result, in pixels.
        boxes: (heights, widths, indices; each N int64) -> N x 4 int64: top, left, height, width.
    """

    size: int
    boxes: Callable[[Tensor, Tensor, Tensor], Tensor]


class Loader:
    """Batches of one beton, in an order that depends on (seed, epoch) alone.

    Equal squares are gathered as they are. Images of other shapes are decoded once and cut as often as asked, one batch
    ahead of the one that is worked on. No number of workers, processes or images a batch changes a pixel.

    With several processes, one step's batches, one after the other by rank, are the batch that one process would have
    taken with a `batch_size` of their sum. All have the same number of batches. A last batch that is smaller is shared
    out as evenly as it goes; images that are too few for one each are left out. Nothing is given twice.

    Args:
        beton: the file.
        batch_size: images a batch of this process.
        seed: None: the order of the file.
        drop_last: leave out a last batch that is smaller than the others, unless it is the only one.
        limit: only the first so many images of the order.
        workers: threads that decode images of different sizes; torch's own thread count is not touched.
        size: side of `Raw.image`, in pixels; None: the stored squares'.
        subset: the positions in the file (int64) to give alone, in this order where there is no seed; None: all.
        rank, world: this process and how many there are.

    Raises:
        UserError: the file is missing or broken, or has fewer images than there are processes.
        ValueError: the images differ in size and `size` is None.
    """

    _started = False
    """Whether this process has had its first batch."""

    def __init__(
        self,
        beton: Path,
        batch_size: int,
        *,
        seed: int | None = None,
        drop_last: bool = False,
        limit: int | None = None,
        workers: int = 1,
        size: int | None = None,
        subset: np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._opened = time.perf_counter()
        self.beton = Beton(beton)
        if size is None and self.beton.side is None:
            raise ValueError(f"{beton}: the images differ in size; say how large they should come")
        self.size = size or self.beton.side or 0
        self.seed = seed
        self.workers = workers
        self._rows = np.arange(len(self.beton)) if subset is None else subset
        self.total = len(self._rows)
        self._shares = shares(min(limit or self.total, self.total), batch_size, drop_last, rank, world)
        if not self._shares:
            raise UserError(f"{beton}: {self.total} images cannot be shared by {world} processes; start fewer")
        self.images = sum(stop - start for start, stop in self._shares)
        self._opened = time.perf_counter() - self._opened

    def __len__(self) -> int:
        """Batches an epoch, the same for every process."""
        return len(self._shares)

    def __call__(self, epoch: int = 0, cuts: Sequence[Cut] = ()) -> Iterator[Raw]:
        """The batches of one epoch; the tensors are the caller's own.

        Args:
            epoch: which; nothing depends on those before.
            cuts: what `Raw.views` should hold where the images are not equal squares of `size`.
        """
        order = self._rows
        if self.seed is not None:
            order = order[permutation(Key(self.seed, epoch), "order", self.total)]
        batches = [order[start:stop] for start, stop in self._shares]
        start = time.perf_counter()
        for batch in self._squares(batches) if self.beton.side == self.size else self._cut(batches, cuts):
            if not Loader._started:
                Loader._started = True
                waited(f"the first batch of {self.beton.path.name}", self._opened + time.perf_counter() - start)
            yield batch

    def _squares(self, batches: list[np.ndarray]) -> Iterator[Raw]:
        for rows in batches:
            yield self._raw(rows, torch.from_numpy(self.beton.squares(rows)))

    def _cut(self, batches: list[np.ndarray], cuts: Sequence[Cut]) -> Iterator[Raw]:
        tasks: list[_Decoding] = []
        try:
            for rows in batches:
                tasks.append(_Decoding(self.beton, rows, cuts or [Cut(self.size, _centres)], self.workers))
                if len(tasks) > 1:
                    yield self._done(tasks.pop(0), cuts)
            yield self._done(tasks.pop(0), cuts)
        finally:
            for task in tasks:
                task.cancel()

    def _done(self, task: "_Decoding", cuts: Sequence[Cut]) -> Raw:
        views = task.result()
        return self._raw(task.rows, views[0], views if cuts else ())

    def _raw(self, rows: np.ndarray, image: Tensor, views: tuple[Tensor, ...] = ()) -> Raw:
        return Raw(image, torch.from_numpy(self.beton.labels_of(rows)), torch.from_numpy(rows.copy()), views)


class _Decoding:
    """One batch on its way: each image is decoded by one of the threads, and written where it belongs."""

    def __init__(self, beton: Beton, rows: np.ndarray, cuts: Sequence[Cut], workers: int) -> None:
        self.rows = rows
        # Not torch.empty, which fills what it gives when torch is told to be deterministic.
        self._views = [np.empty((len(rows), 3, each.size, each.size), np.uint8) for each in cuts]
        heights, widths, index = (torch.from_numpy(each) for each in (*beton.shapes(rows), rows.copy()))
        boxes = [each.boxes(heights, widths, index).tolist() for each in cuts]

        def decode(positions: np.ndarray) -> None:
            for i in positions.tolist():
                image = beton[int(rows[i])]
                for view, box in zip(self._views, boxes, strict=True):
                    view[i] = cut(image, box[i], view.shape[2])

        pieces = np.array_split(np.arange(len(rows)), min(PIECES * workers, len(rows)))
        self._futures: list[Future[None]] = [_pool(workers).submit(decode, piece) for piece in pieces]

    def result(self) -> tuple[Tensor, ...]:
        for future in self._futures:
            future.result()
        return tuple(torch.from_numpy(view) for view in self._views)

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()


def shares(images: int, batch_size: int, drop_last: bool, rank: int, world: int) -> list[tuple[int, int]]:
    """The stretches of the common order that one process takes, a batch each.

    Args:
        images: of the common order.
        batch_size: images a batch of one process.
        drop_last: leave out a last step that is smaller than the others, unless it is the only one.
        rank, world: this process and how many there are.
    """
    step = batch_size * world
    starts = range(rank * batch_size, images - images % step, step)
    found = [(start, start + batch_size) for start in starts]
    rest = images % step
    if rest >= world and not (drop_last and found):
        each, more = divmod(rest, world)
        start = images - rest + rank * each + min(rank, more)
        found.append((start, start + each + (rank < more)))
    return found


def _centres(heights: Tensor, widths: Tensor, _: Tensor) -> Tensor:
    return torch.from_numpy(centres(heights.numpy(), widths.numpy()))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """The process's decoding threads; kept, because each holds a JPEG decoder that it never gives back."""
    return ThreadPoolExecutor(workers, "decode", initializer=_one_thread)


def _one_thread() -> None:
    """Make this thread do all by itself: torch would start two or more others for each one that decodes.

    OpenMP keeps its thread count for each calling thread, so the one that trains keeps its own.
    """
    torch.get_num_threads()  # sets this thread's count the first time, and would do so later
    threadpool_limits(1, "openmp")
