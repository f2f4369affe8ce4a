"""Betons -> batches of uint8 images: FFCV decodes, the order is ours.

FFCV's own random order is `default_rng(seed + epoch)`, so neighbouring seeds share permutations, and a resumed loader
starts at epoch 0 again. Here the order of epoch e is a hash of (seed, e) and needs no history.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from miyagi.data.rng import Key, permutation
from miyagi.data.threads import import_ffcv


@dataclass(frozen=True)
class Raw:
    """One decoded batch: images N x 3 x S x S uint8, labels N int64, indices N int64."""

    image: Tensor
    label: Tensor
    index: Tensor

    def to(self, device: torch.device) -> "Raw":
        """The batch on another device."""
        return Raw(self.image.to(device), self.label.to(device), self.index.to(device))


class Loader:
    """Batches of one beton, in an order that depends on (seed, epoch) alone.

    Args:
        beton: the file.
        batch_size: images a batch.
        seed: None: the order of the file.
        drop_last: leave out a last batch that is smaller than the others, unless it is the only one.
        limit: only the first so many images of the order.
        workers: threads of FFCV's decoder; torch's own thread count is not touched.
    """

    def __init__(
        self,
        beton: Path,
        batch_size: int,
        *,
        seed: int | None = None,
        drop_last: bool = False,
        limit: int | None = None,
        workers: int = 1,
    ) -> None:
        import_ffcv()
        from ffcv.fields.basics import IntDecoder
        from ffcv.fields.rgb_image import SimpleRGBImageDecoder
        from ffcv.loader import Loader as FFCVLoader
        from ffcv.transforms import ToTensor

        self._ffcv = FFCVLoader(
            str(beton),
            batch_size=batch_size,
            num_workers=workers,
            seed=0,
            drop_last=False,
            pipelines={
                "image": [SimpleRGBImageDecoder(), ToTensor()],
                "label": [IntDecoder(), ToTensor()],
                "index": [IntDecoder(), ToTensor()],
            },
        )
        self.seed = seed
        self.total = int(self._ffcv.reader.num_samples)
        self.images = min(limit or self.total, self.total)
        if drop_last and self.images > batch_size:
            self.images -= self.images % batch_size
        self.batch_size = batch_size
        self._epoch = 0
        # FFCV asks this object for each epoch's order; the attribute is public, and any object with the method will do.
        self._ffcv.traversal_order = self

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self.images // self.batch_size)

    def sample_order(self, _: int) -> np.ndarray:
        """The indices of the current epoch; called by FFCV, whose own count of epochs is ignored."""
        if self.seed is None:
            return np.arange(self.images)
        return permutation(Key(self.seed, self._epoch), "order", self.total)[: self.images]

    def __call__(self, epoch: int = 0) -> Iterator[Raw]:
        """The batches of one epoch. Tensors are the caller's own: FFCV's buffers are copied."""
        self._epoch = epoch
        self._ffcv.first_traversal_order = self.sample_order(epoch)  # what FFCV takes its number of batches from
        for image, label, index in self._ffcv:
            yield Raw(
                image.permute(0, 3, 1, 2).contiguous(),
                label.reshape(-1).to(torch.int64, copy=True),
                index.reshape(-1).to(torch.int64, copy=True),
            )
