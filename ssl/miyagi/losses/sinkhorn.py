"""Codes by Sinkhorn-Knopp, and the swapped prediction of them (SwAV, Caron et al., NeurIPS 2020)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import in_fp32


@in_fp32
@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Codes that share a batch out among the prototypes: Q = diag(u) exp(scores / epsilon) diag(v), equations 3 to 5.

    Each iteration gives every prototype the same total, N / C, and then every image the total 1. Sums are taken of
    logarithms, so no exponential overflows at a small epsilon.

    Args:
        scores: N x C, of the whole batch (with several processes, gathered).
        epsilon: weight of the codes' entropy; the smaller, the closer a code is to one prototype.
        iterations: at least 1; with more of them the prototypes' totals come closer to one another.

    Returns:
        Q, N x C; rows sum to 1, no gradient.
    """
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q - torch.logsumexp(log_q, 0, keepdim=True)
        log_q = log_q - torch.logsumexp(log_q, 1, keepdim=True)
    return log_q.exp()


@in_fp32
def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """The mean of -q_i log softmax(s_v / tau) over the coded views i and all other views v (equation 2, multi-crop).

    Args:
        scores: V x N x C, of V >= 2 views of N images.
        codes: L x N x C, of the first L >= 1 of them.
        temperature: tau > 0.

    Returns:
        A scalar.
    """
    log_answer = F.log_softmax(scores / temperature, dim=2)
    losses = [
        -(codes[i] * log_answer[v]).sum(1).mean() for i in range(len(codes)) for v in range(len(scores)) if v != i
    ]
    return torch.stack(losses).mean()
