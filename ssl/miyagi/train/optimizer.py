"""The optimisers, each by its fastest path: one kernel updates all parameters."""

from typing import Any

import torch

from miyagi.methods.base import Method
from miyagi.settings import MethodSettings, Pretrain


def optimizer(method: Method[MethodSettings], settings: Pretrain) -> torch.optim.Optimizer:
    """The optimiser of a method's parameter groups; its learning rate is set at each step.

    LARS (You, Gitman and Ginsburg, arXiv 1708.03888) scales each layer's step by trust x |w| / (|g| + decay |w|), which
    keeps batches of thousands stable. As in SimCLR, biases and normalisation layers (the groups that a method gives a
    weight decay of 0) get neither that scaling nor weight decay. SimCLR: lr 0.3 x batch / 256, momentum 0.9, weight
    decay 1e-6.
    """
    groups: list[dict[str, Any]] = [group for group in method.parameter_groups() if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, settings.lr, weight_decay=settings.weight_decay, fused=True)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, settings.lr, settings.momentum, weight_decay=settings.weight_decay, fused=True)
    from timm.optim.lars import Lars  # timm takes seconds to import

    # timm adapts only where there is weight decay; here what is adapted must not depend on the decay's size.
    groups = [{"always_adapt": group.get("weight_decay") != 0, **group} for group in groups]
    return Lars(groups, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
