"""The batch of all processes, for methods that compare images with one another or keep what they have seen.

With W processes each holds a W-th of the batch, and DistributedDataParallel averages their gradients. If a process
returns the loss L_r and the mean of L_r over the processes is the loss of the whole batch, then the averaged gradient
is that of the whole batch, without any factor:

    gather's backward pass gives z_r the sum over s of dL_s / dz_r, and so
    (1 / W) sum_r (dz_r / dw) sum_s (dL_s / dz_r) = d/dw (1 / W) sum_s L_s.

It does not matter whether L_r is the loss of the process's own anchors among all embeddings or, computed W times, the
loss of the whole batch from gathered embeddings. In one process everything here is the identity, without a copy.
All processes hold equally many images, and call the same functions in the same order.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """What all processes hold (N x ... each to W N x ..., rank by rank), with gradient to each of them."""
    if world_size() == 1:
        return x
    found: Tensor = _Gather.apply(x)
    return found


@torch.no_grad()
def gather_detached(x: Tensor) -> Tensor:
    """What all processes hold (N x ... each to W N x ..., rank by rank), without gradient; also integers."""
    return x.detach() if world_size() == 1 else _concatenated(x)


@torch.no_grad()
def average_(tensors: Iterable[Tensor]) -> None:
    """Replace floating-point tensors by their means over the processes, in one exchange."""
    tensors = list(tensors)
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([x.flatten().float() for x in tensors])
    dist.all_reduce(flat)
    for x, mean in zip(tensors, (flat / world_size()).split([x.numel() for x in tensors]), strict=True):
        x.copy_(mean.view_as(x))


def _concatenated(x: Tensor) -> Tensor:
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _concatenated(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        total = gradient.clone(memory_format=torch.contiguous_format)  # not ours to change
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]
