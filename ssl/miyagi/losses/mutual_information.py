"""Estimators of mutual information as losses (Hjelm et al., ICLR 2019, section 3), and the bound that InfoNCE gives.

A score T is high for a pair that belongs together (drawn from the joint distribution) and low for one that does not
(drawn from the product of the marginals). Scores may have any shape; the losses take means over all of them.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import in_fp32


@in_fp32
def jsd(positive: Tensor, negative: Tensor) -> Tensor:
    """L = E[softplus(-T+)] + E[softplus(T-)]: minus the Jensen-Shannon estimator (equation 4).

    It orders representations as mutual information does, but its value is no estimate of it in nats.

    Args:
        positive: scores of pairs that belong together.
        negative: scores of pairs that do not; those to be left out are not passed.

    Returns:
        A scalar; 2 log 2 where every score is 0.
    """
    return F.softplus(-positive).mean() + F.softplus(negative).mean()


@in_fp32
def dv(positive: Tensor, negative: Tensor, gather: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """L = log E[exp(T-)] - E[T+]: minus the Donsker-Varadhan bound (Belghazi et al., ICML 2018; equation 2).

    -L estimates I from below, in nats, up to the bias of a logarithm of a mean over few samples.

    Args:
        positive: scores of pairs that belong together.
        negative: scores of pairs that do not.
        gather: what all processes hold, with gradient (nn/gather.py): a logarithm of the mean over all of them is no
            mean of their logarithms. Each has equally many scores.
    """
    own = torch.logsumexp(negative.flatten(), 0) - math.log(negative.numel())
    every = gather(own[None])
    return torch.logsumexp(every, 0) - math.log(len(every)) - positive.mean()


def mutual_information_bound(loss: Tensor, candidates: Tensor | float) -> Tensor:
    """I(q; k) >= log(candidates) - L of InfoNCE, in nats (van den Oord et al. 2018, equation 8).

    It holds for negatives drawn independently of the query: those of the same batch. It does not hold with negatives
    that are weighted by their hardness, or that a bank or a queue of older networks' keys holds; do not log it there.

    Args:
        loss: InfoNCE, the mean over the queries.
        candidates: how many keys a query chooses among, its positive included: K + 1 with K negatives, 2N - 1 for
            NT-Xent. The bound is never above its logarithm.
    """
    return torch.as_tensor(candidates, dtype=torch.float32, device=loss.device).log() - loss.detach().float()
