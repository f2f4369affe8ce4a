"""How much of a reconstruction's target is explained: what an accuracy is to a method with classes."""

import torch
from torch import Tensor

from miyagi.nn.gather import gather_detached


@torch.no_grad()
def explained(error: Tensor, target: Tensor) -> Tensor:
    """1 - mean squared error / variance of the target: R^2, with one mean for all numbers.

    Args:
        error: this process's mean squared error (scalar).
        target: the numbers that it is the error of, of any shape; each process has equally many.

    Returns:
        A scalar: 1 where all is right, 0 for an answer that is everywhere the mean, below 0 for worse ones. The
        variance is that of all processes' targets, so the mean over processes is what one would find.
    """
    variance, mean = torch.var_mean(target.float(), correction=0)
    variances, means = gather_detached(torch.stack([variance, mean])[None]).unbind(1)
    whole = variances.mean() + means.var(correction=0)
    return 1 - error.detach() / whole.clamp(min=1e-12)
