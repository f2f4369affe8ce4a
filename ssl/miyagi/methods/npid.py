"""Instance discrimination with a memory bank, NPID (Wu et al., CVPR 2018): every image is its own class.

    P(i | v) = exp(v.f_i / tau) / Z,  v = g(f(x_i)) / |g(f(x_i))|,  f_i: what the bank holds of image i,
    L = L_data + lambda |v - f_i|^2,  f_i <- m f_i + (1 - m) v, at unit length again,

where L_data is -log P(i | v) with Z summed over the whole bank (`loss: softmax`), or the binary NCE that tells image i
from K samples of noise, with Z fixed after the first 10 batches (`nce`; losses/nce.py). The last term (`proximal`)
keeps an image, which comes once an epoch, from jumping; the released code leaves it out, and so does the default.
Paper: K 4096, tau 0.07, m 0.5, 128 dimensions, linear head, SGD with learning rate 0.03, batch 256, 200 epochs; the
whole softmax on CIFAR-10, NCE on ImageNet.

The paper draws its noise for each query, with replacement and among all images; here a step's queries share K images
without the step's own, and K is at most all of them. The bank starts at random, so the first epoch has nothing to agree
with: short trainings profit from `loss: softmax`, and from more epochs than SimCLR needs.
Loader: one view, strongly augmented.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.nce import log_partition, nce
from miyagi.losses.softmax import non_parametric_softmax
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.memory_bank import MemoryBank
from miyagi.nn.negatives import FromBank
from miyagi.nn.partition import Partition
from miyagi.settings import Fraction, Head, MethodSettings


class Settings(MethodSettings):
    """Settings of NPID."""

    recipe: str = "moco_v1"
    loss: Literal["nce", "softmax"] = Field("nce", description="softmax: exact, over the whole bank")
    temperature: float = Field(0.07, gt=0, description="tau")
    number: int = Field(4096, ge=1, description="K of nce: negatives, drawn anew at each step")
    bank_momentum: Fraction = Field(0.5, description="m of the bank's features")
    proximal: float = Field(0.0, ge=0, description="lambda; the paper compares values up to 50")
    head: Head = Head(kind="linear", out=128)


class NPID(Method[Settings]):
    """A query against the bank's features of all images."""

    views = (View("image"),)

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.head = heads.build(settings.head, self.encoder.dim)
        out = heads.out_width(settings.head, self.encoder.dim)
        self.negatives = FromBank(settings.number, MemoryBank(info.n, out, settings.bank_momentum))
        self.partition = Partition(info.n)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        query = F.normalize(self.head(self.encoder(batch.views[0])).float(), dim=1)
        self._pending.append((batch.index, query.detach()))
        bank = self.negatives.bank.features
        old = bank[batch.index]
        if self.settings.loss == "softmax":
            data, accuracy = non_parametric_softmax(query, bank, batch.index, self.settings.temperature)
        else:
            data, accuracy = self.nce(batch, query, old)
        moved = (query - old).square().sum(1).mean()
        return {"loss": data + self.settings.proximal * moved, "accuracy": accuracy, "moved": moved.detach()}

    def nce(self, batch: Batch, query: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the share of queries that are nearer to their own image than to all negatives."""
        tau, n = self.settings.temperature, self.partition.n
        negatives, _ = self.negatives(batch.key, batch.index, query)
        log_z = self.partition(log_partition(query, negatives, tau, n=n))
        with torch.no_grad():
            accuracy = ((query * old).sum(1) > (query @ negatives.T).amax(1)).float().mean()
        return nce(query, old, negatives, tau, n=n, log_z=log_z), accuracy

    def after_step(self, progress: float) -> None:
        for index, features in self._pending:
            self.negatives.update(index, features)
        self._pending.clear()
