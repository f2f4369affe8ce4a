"""MoCo (He et al., CVPR 2020) and MoCo v2 (Chen et al., arXiv 2003.04297): a queue of keys from a momentum encoder.

    L = -log( exp(q.k+ / tau) / (exp(q.k+ / tau) + sum over the queue of exp(q.k_i / tau)) ),
    key encoder <- m key encoder + (1 - m) query encoder.

The defaults are v2 (MLP head, tau 0.2, blur); v1 is {recipe: moco_v1, temperature: 0.07, head: {kind: linear}}; v2+
adds {symmetric: true}: each view is the query once. With {symmetric: true, negatives: batch} the keys of the batch are
the negatives, as in v3 (Chen et al., ICCV 2021), without v3's predictor.
Other losses, other sources of negatives and hard-negative weights are settings, as in SimCLR.
Paper: K 65,536, m 0.999, SGD with learning rate 0.03, batch 256, 200 epochs. Small data wants a small queue and a
faster key encoder: K should stay below the number of images, or an image's own old key is its negative.
Shuffling BN (section 3.3): a query and a key that were normalised with one batch's statistics share its signature, and
the network may learn to compare signatures. The paper shuffles keys among GPUs; here the keys of the whole batch are
shuffled and normalised in `key_splits` parts, which several processes share out: with as many processes as parts, it is
the paper's. Queries and keys have an encoder each, and keys their parts, so there is no common forward pass.
Loader: two views.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.rng import bits
from miyagi.errors import UserError
from miyagi.losses.contrast import contrast
from miyagi.methods.base import Method
from miyagi.nn import heads, negatives
from miyagi.nn.ema import ema, frozen_copy
from miyagi.nn.gather import average_, gather, gather_detached, rank, world_size
from miyagi.nn.partition import Partition
from miyagi.nn.sync_batch_norm import keep_local, local_statistics
from miyagi.settings import ContrastiveSettings, Fraction, Head


class Settings(ContrastiveSettings):
    """Settings of MoCo."""

    recipe: str = "moco_v2"
    negatives: Literal["batch", "bank", "queue"] = "queue"
    momentum: Fraction = Field(0.999, description="m, of the key encoder")
    symmetric: bool = Field(False, description="each view is the query once, the other one its key (v2+, v3)")
    key_splits: int = Field(
        8,
        ge=1,
        description="parts in which keys are normalised, shuffled; 1: all at once; runtime.processes divides it",
    )
    head: Head = Head()


class MoCo(Method[Settings]):
    """Queries against a queue of keys."""

    views = (View("query", recipe=0), View("key", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        if settings.key_splits % world_size():
            raise UserError(
                f"moco: key_splits {settings.key_splits} cannot be shared out among {world_size()} processes; "
                "make it a multiple of runtime.processes"
            )
        self.settings = settings
        self.head = heads.build(settings.head, self.encoder.dim)
        self.key_encoder = frozen_copy(self.encoder)
        self.key_head = frozen_copy(self.head)
        for part in (self.key_encoder, self.key_head):
            keep_local(part)
        self.negatives = negatives.build(settings, info.n, heads.out_width(settings.head, self.encoder.dim))
        self.partition = Partition(info.n)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        found, keys = [], []
        for one, other in ((0, 1), (1, 0)) if self.settings.symmetric else ((0, 1),):
            query = self._unit(self.head(self.encoder(batch.views[one])))
            key = self.encode_keys(batch, other)
            candidates, keep = self.negatives(batch.key, batch.index, key)
            found.append(contrast(query, key, candidates, keep, self.settings, self.partition, gather))
            keys.append(key)
        self._pending.append((batch.index, torch.cat(keys)))
        return {name: torch.stack([figures[name] for figures in found]).mean() for name in found[0]}

    @torch.no_grad()
    def encode_keys(self, batch: Batch, view: int = 1) -> Tensor:
        """The keys of one view (N x D), encoded in shuffled parts of at least two images."""
        index, processes = gather_detached(batch.index), world_size()
        order = bits(batch.key, "moco/shuffle", index, 1)[:, 0].argsort()
        images = gather_detached(batch.views[view])[order.chunk(processes)[rank()]]
        images = images.contiguous(memory_format=torch.channels_last)
        splits = max(1, min(self.settings.key_splits // processes, len(images) // 2))
        keys = torch.cat([self._unit(self.key_head(self.key_encoder(part))) for part in images.tensor_split(splits)])
        keys = gather_detached(keys)
        return torch.empty_like(keys).index_copy_(0, order, keys).chunk(processes)[rank()]

    def after_step(self, progress: float) -> None:
        follower, leader = nn.ModuleList([self.key_encoder, self.key_head]), nn.ModuleList([self.encoder, self.head])
        ema(follower, leader, self.settings.momentum)
        average_(local_statistics(follower))  # each process has normalised keys of its own
        for index, keys in self._pending:
            self.negatives.update(index, keys)
        self._pending.clear()

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=1) if self.settings.l2_normalize else x.float()
