"""The constant of NCE: measured over the first batches, then fixed (Wu et al., CVPR 2018, section 3.2)."""

import math

import torch
from torch import Tensor, nn

from miyagi.nn.gather import gather_detached


class Partition(nn.Module):
    """log Z: the mean of Z over the first `batches` estimates, and constant afterwards; survives a resume.

    Args:
        n: images in the data; kept for whoever estimates Z.
        batches: how many estimates are averaged.
    """

    log_z: Tensor
    seen: Tensor

    def __init__(self, n: int, batches: int = 10) -> None:
        super().__init__()
        self.n = n
        self.batches = batches
        self.register_buffer("log_z", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, estimate: Tensor) -> Tensor:
        """log Z (scalar) after one more `estimate` of it (scalar), which counts while Z is not fixed yet."""
        if self.seen < self.batches:
            estimates = gather_detached(estimate[None])
            estimate = torch.logsumexp(estimates, 0) - math.log(len(estimates))
            total = torch.logaddexp(self.log_z + self.seen.log(), estimate)  # log 0: the first counts alone
            self.seen += 1
            self.log_z.copy_(total - self.seen.log())
        return self.log_z.clone()
