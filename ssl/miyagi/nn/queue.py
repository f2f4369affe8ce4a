"""The momentum queue: the last K keys, oldest overwritten first (He et al., CVPR 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Queue(nn.Module):
    """K vectors of unit length, random at first; its content and its position survive a resume.

    Args:
        size: K.
        width: dimensions of a key.
    """

    keys: Tensor
    position: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Overwrite the oldest keys with `keys` (N x width), wrapping round; of more than K, the last K stay.

        With several processes, `keys` are those of all of them, so that every process comes to hold the same queue.
        """
        size = len(self.keys)
        # The position stays on its device: reading it would make the host wait for the GPU at each step.
        slots = (self.position + torch.arange(len(keys), device=keys.device)) % size
        self.keys.index_copy_(0, slots[-size:], keys[-size:].to(self.keys.dtype))
        self.position.add_(len(keys)).remainder_(size)
