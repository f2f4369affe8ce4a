"""The steps of a protocol's training: the optimiser of an encoder and what stands on it, and the rate's way."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from miyagi.settings import Descent, Pretrain
from miyagi.train.schedule import learning_rate


def optimizer(how: Descent, parts: Sequence[tuple[nn.Module, float]]) -> torch.optim.Optimizer:
    """The optimiser of modules, each with its peak learning rate, which its groups keep as `peak`.

    Biases and normalisation layers get no weight decay.
    """
    groups: list[dict[str, Any]] = []
    for module, lr in parts:
        groups += [
            {"params": [p for p in module.parameters() if p.ndim > 1], "peak": lr},
            {"params": [p for p in module.parameters() if p.ndim <= 1], "peak": lr, "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    if how.optimizer == "sgd":
        return torch.optim.SGD(groups, 0.0, how.momentum, weight_decay=how.weight_decay, fused=True)
    return torch.optim.AdamW(groups, 0.0, weight_decay=how.weight_decay, fused=True)


def share(how: Descent, progress: float) -> float:
    """The learning rate as a share of its peak.

    Args:
        how: `cosine` with a warm-up, or `step`: a tenth after 60 % and a hundredth after 80 % (He et al., CVPR 2020).
        progress: share of the steps that are done, in [0, 1].
    """
    if how.schedule == "step":
        return 0.1 ** ((progress >= 0.6) + (progress >= 0.8))
    return learning_rate(Pretrain(epochs=1, lr=1.0, warmup_epochs=how.warmup), progress)
