"""Exponential moving average of a network: the key encoder of MoCo, the target of BYOL."""

import copy
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
