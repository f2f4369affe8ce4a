"""MoCo (He et al., CVPR 2020) and MoCo v2 (Chen et al., arXiv 2003.04297): a queue of keys from a momentum encoder.

    L = -log( exp(q.k+ / tau) / (exp(q.k+ / tau) + sum over the queue of exp(q.k_i / tau)) ),
    key encoder <- m key encoder + (1 - m) query encoder.

The defaults are v2 (MLP head, tau 0.2, blur); v1 is {recipe: moco_v1, temperature: 0.07, head: {kind: linear}}.
Paper: K 65,536, m 0.999, SGD with learning rate 0.03, batch 256, 200 epochs. Small data wants a small queue and a
faster key encoder: K should stay below the number of images, or an image's own old key is its negative.
Shuffling BN (section 3.3): a query and a key that were normalised with one batch's statistics share its signature, and
the network may learn to compare signatures. The paper shuffles keys among GPUs; on one device the keys are shuffled
and normalised in `key_splits` parts.
Loader: two views.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.rng import bits
from miyagi.losses.info_nce import info_nce
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.ema import ema, frozen_copy
from miyagi.nn.queue import Queue
from miyagi.settings import Fraction, Head, MethodSettings


class Settings(MethodSettings):
    """Settings of MoCo."""

    recipe: str = "moco_v2"
    temperature: float = Field(0.2, gt=0)
    l2_normalize: bool = True
    momentum: Fraction = Field(0.999, description="m, of the key encoder")
    queue: int = Field(65536, ge=1, description="K, the negatives")
    key_splits: int = Field(8, ge=1, description="parts in which keys are normalised, shuffled; 1: all at once")
    head: Head = Head()


class MoCo(Method[Settings]):
    """Queries against a queue of keys."""

    views = (View("query", recipe=0), View("key", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.head = heads.build(settings.head, self.encoder.dim)
        self.key_encoder = frozen_copy(self.encoder)
        self.key_head = frozen_copy(self.head)
        self.queue = Queue(settings.queue, heads.out_width(settings.head, self.encoder.dim))
        self.temperature = settings.temperature
        self.momentum = settings.momentum
        self.key_splits = settings.key_splits
        self.l2_normalize = settings.l2_normalize
        self._pending: Tensor | None = None

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        query = self._unit(self.head(self.encoder(batch.views[0])))
        key = self.encode_keys(batch)
        loss, accuracy = info_nce(query, key, self.queue.keys, self.temperature)
        self._pending = key
        return {"loss": loss, "accuracy": accuracy}

    @torch.no_grad()
    def encode_keys(self, batch: Batch) -> Tensor:
        """The second views' keys (N x D), encoded in shuffled parts of at least two images."""
        images = batch.views[1]
        order = bits(batch.key, "moco/shuffle", batch.index, 1)[:, 0].argsort()
        parts = images[order].tensor_split(max(1, min(self.key_splits, len(images) // 2)))
        keys = torch.cat([self._unit(self.key_head(self.key_encoder(part))) for part in parts])
        return torch.empty_like(keys).index_copy_(0, order, keys)

    def after_step(self, progress: float) -> None:
        ema(nn.ModuleList([self.key_encoder, self.key_head]), nn.ModuleList([self.encoder, self.head]), self.momentum)
        if self._pending is not None:
            self.queue.push(self._pending)
            self._pending = None

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) if self.l2_normalize else x
