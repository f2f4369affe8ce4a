"""Exponential moving average of a network: the key encoder of MoCo, the target of BYOL."""

import copy
import math
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """A copy that takes no gradient."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def ema(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """target <- momentum target + (1 - momentum) source, for each parameter (He et al. 2020, equation 2).

    Buffers (the statistics of BatchNorm) stay the target's own, which sees its own batches.
    """
    for old, new in zip(target.parameters(), source.parameters(), strict=True):
        old.lerp_(new, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """m = 1 - (1 - start) (cos(pi progress) + 1) / 2: from `start` to 1 (Grill et al., NeurIPS 2020, section 3.3).

    Args:
        start: the momentum of the first step.
        progress: share of the training that is done, in [0, 1].
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
