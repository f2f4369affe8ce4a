"""The learning rate as a function of progress alone, so that a resume needs no state of it."""

import math

from miyagi.settings import Pretrain


def learning_rate(settings: Pretrain, progress: float) -> float:
    """Linear warm-up from 0, then half a cosine from lr to min_lr (Loshchilov and Hutter, ICLR 2017).

    Args:
        settings: epochs, warmup_epochs, lr, min_lr.
        progress: share of all steps that are done, in [0, 1]; the middle of a step is the step's own.
    """
    warmup = settings.warmup_epochs / settings.epochs
    if progress < warmup:
        return settings.lr * progress / warmup
    done = (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0
    return settings.min_lr + (settings.lr - settings.min_lr) * 0.5 * (1 + math.cos(math.pi * done))
