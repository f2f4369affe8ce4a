"""SwAV (Caron et al., NeurIPS 2020): from one crop, predict to which prototypes another crop of the image was assigned.

    L = mean over the large crops i and all other crops v of -q_i . log softmax(C z_v / 0.1),  z = g(f(x)) / |g(f(x))|,
    q_i = Sinkhorn-Knopp of C z_i over the batch (3 iterations, epsilon 0.05), without gradient.

That the prototypes C share the batch out evenly keeps all images from going to one of them. Codes are those of the
images of all processes, of one of `pretrain.accumulate` parts of a batch. `used` is the share of prototypes that are
the nearest one of any large crop: near 0 it has collapsed.
Paper: 3000 prototypes, batch 4096, LARS with learning rate 4.8, weight decay 1e-6, 800 epochs, 10 of warm-up; head of
one hidden layer of 2048 with BatchNorm and 128 outputs; 2 large and 6 small crops, of 224 and 96 pixels. Prototypes do
not move in the first epoch (313 steps), and have length 1 after every step. A batch that is small beside the
prototypes wants fewer of them, or a queue of earlier z (paper: 3840 for a batch of 256, from epoch 15 on).
BatchNorm: the crops of one size share a forward pass, and the head sees all crops together, as in the reference code.
Loader: two large views, and small ones that are no smaller than the encoder's min_size.
"""

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo
from miyagi.losses.sinkhorn import sinkhorn, swapped_prediction
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.gather import gather_detached, rank, world_size
from miyagi.nn.heads import Prototypes
from miyagi.nn.multi_crop import crops, encode
from miyagi.nn.queue import Queue
from miyagi.settings import Head, MethodSettings

LARGE = 2
"""Views that get codes."""


class Settings(MethodSettings):
    """Settings of SwAV."""

    recipe: str = "multi_crop"
    prototypes: int = Field(3000, ge=2, description="C")
    temperature: float = Field(0.1, gt=0, description="tau")
    epsilon: float = Field(0.05, gt=0, description="of Sinkhorn-Knopp: the smaller, the harder the codes")
    iterations: int = Field(3, ge=1, le=100, description="of Sinkhorn-Knopp")
    frozen_epochs: int = Field(1, ge=0, description="first epochs, in which the prototypes do not move")
    queue: int = Field(0, ge=0, description="earlier embeddings of each large crop that codes are made with; 0: none")
    queue_epochs: int = Field(15, ge=0, description="epochs before the queue begins to fill; it counts once it is full")
    head: Head = Head(width=2048, out=128, batch_norm=True)
    small: int = Field(6, ge=0, le=32, description="small crops an image")
    small_size: float = Field(96 / 224, gt=0, le=1, description="side of a small crop as a share of the image's")


class SwAV(Method[Settings]):
    """Swapped assignments between the crops of an image."""

    queued: Tensor

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.views = crops(self.encoder, info.size, LARGE, settings.small, settings.small_size)
        self.head = heads.build(settings.head, self.encoder.dim)
        width = heads.out_width(settings.head, self.encoder.dim)
        self.prototypes = Prototypes(width, settings.prototypes)
        self.queues = nn.ModuleList(Queue(settings.queue, width) for _ in range(LARGE if settings.queue else 0))
        self.register_buffer("queued", torch.zeros((), dtype=torch.int64))
        self._epoch = 0
        self._pending: list[Tensor] = []

    def before_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        self._epoch = epoch

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        n = len(batch)
        z = F.normalize(self.head(encode(self.encoder, batch.views)).float(), dim=1)
        scores = self.prototypes(z).float().unflatten(0, (-1, n))
        self._pending.append(z.detach()[: LARGE * n].unflatten(0, (-1, n)))
        every = [gather_detached(one) for one in scores[:LARGE]]
        loss = swapped_prediction(scores, self.codes(every, n), self.settings.temperature)
        used = torch.cat(every).argmax(1).unique().numel() / self.settings.prototypes
        return {"loss": loss, "used": loss.new_tensor(used)}

    @torch.no_grad()
    def codes(self, every: list[Tensor], n: int) -> Tensor:
        """The codes (2 x n x C) of this process's images, from the scores of all (each W n x C) and of the queue."""
        s, own = self.settings, slice(rank() * n, (rank() + 1) * n)
        if self.queues and int(self.queued) >= s.queue:
            every = [torch.cat([x, self.prototypes(q.keys)]) for x, q in zip(every, self.queues, strict=True)]
        return torch.stack([sinkhorn(x, s.epsilon, s.iterations)[own] for x in every])

    def after_backward(self, progress: float) -> None:
        if self._epoch < self.settings.frozen_epochs:
            self.prototypes.weight.grad = None  # the optimiser passes over it, weight decay and all

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        for z in self._pending if self.queues and self._epoch >= self.settings.queue_epochs else []:
            for queue, one in zip(self.queues, z, strict=True):
                assert isinstance(queue, Queue)
                queue.push(gather_detached(one))
            self.queued += world_size() * z.shape[1]
        self._pending.clear()
