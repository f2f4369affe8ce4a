"""Contrastive multiview coding, CMC (Tian, Krishnan and Isola, ECCV 2020): lightness and colours of an image agree.

An image in Lab is parted into L and ab, each with an encoder and a head of its own: z_1 = g_1(f_1(L)) and
z_2 = g_2(f_2(ab)), at unit length, and

    loss = L_c(z_1 -> z_2) + L_c(z_2 -> z_1),

where L_c finds an image's other half among the other halves of other images. With `negatives: bank` the other halves,
the image's own as well, are what two memory banks hold, as in the authors' code: a half's gradient stays in its own
encoder, and the first epoch has only random features to agree with. With `batch` they are those of the batch, with
gradient to both encoders. Downstream keeps [f_1, f_2], so the encoder is a pair of half encoders (nn/encoders/pair.py).
Paper: tau 0.07, K 16,384, bank momentum 0.5, 128 dimensions, linear heads, NCE with a constant Z for each direction
(losses/nce.py); two halves of ResNet-50, batch 156, SGD with learning rate 0.03, 200 epochs.

A recipe that jitters colours would part what the halves share; crop and flip are the paper's. `head` is g_1 and g_2
side by side on the concatenated features. Grey data is refused; with a recipe that has `gray`, some images have no
second half.
Loader: one view.
"""

from collections import OrderedDict
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.contrast import contrast
from miyagi.methods.base import Method
from miyagi.nn import heads, negatives
from miyagi.nn.encoders.pair import Pair
from miyagi.nn.gather import gather
from miyagi.nn.negatives import FromBank
from miyagi.nn.partition import Partition
from miyagi.settings import ContrastiveSettings, Head


class Settings(ContrastiveSettings):
    """Settings of CMC."""

    encoder_pair = True
    needs_color = True

    recipe: str = "cmc"
    loss: Literal["info_nce", "nce", "n_pair", "margin", "triplet", "jsd", "dv"] = "nce"
    temperature: float = Field(0.07, gt=0, description="tau: 0.07 to 0.2 with l2_normalize, 10 to 100 without")
    negatives: Literal["batch", "bank"] = "bank"
    number: int | None = Field(16384, ge=1, description="negatives of a query, drawn anew at each step; null: all")
    head: Head = Head(kind="linear", out=128)


class Halves(nn.Sequential):
    """Two heads side by side, not one after the other: N x (2 D) -> N x (2 out)."""

    def __init__(self, settings: Head, width: int) -> None:
        super().__init__(OrderedDict(first=heads.build(settings, width), second=heads.build(settings, width)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([head(half) for head, half in zip(self, x.chunk(2, 1), strict=True)], 1)


class CMC(Method[Settings]):
    """Each half is the query once."""

    views = (View("image"),)
    encoder: Pair

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        width = self.encoder.first.dim
        self.head = Halves(settings.head, width)
        out = heads.out_width(settings.head, width)
        self.light_negatives, self.color_negatives = (negatives.build(settings, info.n, out) for _ in range(2))
        self.light_partition, self.color_partition = Partition(info.n), Partition(info.n)  # of queries that are L, ab
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def halves(self, batch: Batch) -> list[Tensor]:
        """z_1 of L and z_2 of ab, each N x D."""
        both = self.head(self.encoder(batch.views[0])).float()
        return [F.normalize(z, dim=1) if self.settings.l2_normalize else z for z in both.chunk(2, 1)]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        light, color = self.halves(batch)
        self._pending.append((batch.index, light.detach(), color.detach()))
        found = []
        for query, other, source, partition in (
            (light, color, self.color_negatives, self.light_partition),
            (color, light, self.light_negatives, self.color_partition),
        ):
            candidates, keep = source(batch.key, batch.index, other)
            key = source.bank.features[batch.index] if isinstance(source, FromBank) else other
            found.append(contrast(query, key, candidates, keep, self.settings, partition, gather))
        logged = {name: torch.stack([figures[name] for figures in found]).mean() for name in found[0]}
        return logged | {"loss": found[0]["loss"] + found[1]["loss"]}

    def after_step(self, progress: float) -> None:
        for index, light, color in self._pending:
            self.light_negatives.update(index, light)
            self.color_negatives.update(index, color)
        self._pending.clear()
