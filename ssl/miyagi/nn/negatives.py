"""Where negatives come from, as interchangeable parts: the batch, a memory bank, a momentum queue.

A part is asked at each step for candidates and for which of them each query may use, and is told of the step's keys
afterwards, so that what it holds is older than what it is compared with. With several processes the batch is the one
of all of them, and every process comes to hold the same bank or queue.
"""

import torch
from torch import Tensor, nn

from miyagi.data.rng import Key, bits
from miyagi.errors import UserError
from miyagi.nn.gather import gather, gather_detached
from miyagi.nn.memory_bank import MemoryBank
from miyagi.nn.queue import Queue
from miyagi.settings import ContrastiveSettings

LAST = torch.iinfo(torch.int64).max


class Negatives(nn.Module):
    """The common interface.

    Args:
        number: negatives of each query, drawn anew at each step; None: all there are.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number = number

    def forward(self, key: Key, index: Tensor, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """Candidates, and which of them each query may use.

        Args:
            key: of the batch; with `index` it decides what is drawn.
            index: N, int64: the images of this step.
            keys: V N x D, what the encoder makes of V views of them, view by view; there is one query for each.

        Returns:
            M x D, and V N x M (bool) or None where every query may use all.
        """
        raise TypeError(f"{type(self).__name__} has no negatives")

    def update(self, index: Tensor, keys: Tensor) -> None:
        """Take in the step's keys (V N x D, view by view) of the images `index` (N)."""

    def draw(self, key: Key, index: Tensor, size: int, without: Tensor | None = None) -> Tensor:
        """`number` of `size` places, the same for all queries of the step, without those in `without`."""
        step = gather_detached(index).min() * size  # each image comes once an epoch, so its smallest index names a step
        order = bits(key, "negatives", step + torch.arange(size, device=index.device), 1)[:, 0]
        left = size
        if without is not None:
            order[without] = LAST
            left -= len(without)
        return order.topk(min(self.number or left, left), largest=False).indices


class InBatch(Negatives):
    """End to end: the views of the batch's other images, with gradient (Chen et al., ICML 2020)."""

    def forward(self, key: Key, index: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        views = len(keys) // len(index)
        query = (views * index + torch.arange(views, device=index.device)[:, None]).flatten()
        candidate = gather_detached(query)
        other = query[:, None] // views != candidate // views
        keys = gather(keys)
        if self.number is None:
            return keys, other
        # Each pair of a query and a candidate has its own number; the smallest ones of a query are drawn.
        pair = ((query[:, None] << 32) + candidate).flatten()
        order = bits(key, "negatives", pair, 1).view(len(query), -1).masked_fill(~other, LAST)
        drawn = order.topk(min(self.number, order.shape[1]), largest=False).indices
        return keys, torch.zeros_like(other).scatter_(1, drawn, True) & other


class FromBank(Negatives):
    """Features of other images, from earlier steps (Wu et al., CVPR 2018)."""

    def __init__(self, number: int | None, bank: MemoryBank) -> None:
        super().__init__(number)
        self.bank = bank

    def forward(self, key: Key, index: Tensor, keys: Tensor) -> tuple[Tensor, None]:
        images = gather_detached(index).unique()
        size = len(self.bank.features)
        if len(images) == size:
            raise UserError(f"negatives: bank: a batch holds all {size} images; lower pretrain.batch_size")
        return self.bank.features[self.draw(key, index, size, images)], None

    def update(self, index: Tensor, keys: Tensor) -> None:
        self.bank.update(index.repeat(len(keys) // len(index)), keys)


class FromQueue(Negatives):
    """The last keys, whatever their image (He et al., CVPR 2020)."""

    def __init__(self, number: int | None, queue: Queue) -> None:
        super().__init__(number)
        self.queue = queue

    def forward(self, key: Key, index: Tensor, keys: Tensor) -> tuple[Tensor, None]:
        held = self.queue.keys
        return (held if self.number is None else held[self.draw(key, index, len(held))]), None

    def update(self, index: Tensor, keys: Tensor) -> None:
        of_images = keys.unflatten(0, (-1, len(index))).transpose(0, 1)  # N x V x D: processes follow one another here
        self.queue.push(gather_detached(of_images).transpose(0, 1).flatten(0, 1))


def build(settings: ContrastiveSettings, n: int, width: int) -> Negatives:
    """The part that `settings.negatives` names.

    Args:
        settings: where from, how many, and the parts' own sizes.
        n: images in the data.
        width: dimensions of a key.
    """
    if settings.negatives == "batch":
        return InBatch(settings.number)
    if settings.negatives == "bank":
        bank = MemoryBank(n, width, settings.bank_momentum, normalize=settings.l2_normalize)
        return FromBank(settings.number, bank)
    return FromQueue(settings.number, Queue(settings.queue, width))
