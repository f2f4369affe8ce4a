"""InfoNCE (van den Oord et al., 2018) in its two common forms.

L = -log( exp(q.k+ / tau) / sum_i exp(q.k_i / tau) ),  the sum over one positive and the negatives.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE with a shared set of negatives (MoCo, He et al. 2020, equation 1).

    Args:
        query: N x D.
        key: N x D, the positive of each query.
        negatives: K x D.
        temperature: tau > 0; the caller normalises the vectors, or does not.

    Returns:
        The mean loss (scalar), and the share of queries whose positive is nearest (scalar, no gradient).
    """
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ negatives.T], 1).float() / temperature
    target = torch.zeros(len(query), dtype=torch.int64, device=query.device)
    return F.cross_entropy(logits, target), (logits.argmax(1) == 0).float().mean().detach()


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent: InfoNCE with the batch's other 2(N - 1) views as negatives, both ways (Chen et al. 2020, equation 1).

    Args:
        first, second: N x D, the two views of N >= 2 images.
        temperature: tau > 0; the caller normalises the vectors, or does not.

    Returns:
        The mean loss over 2N anchors (scalar), and the share of anchors whose positive is nearest (scalar).
    """
    views = torch.cat([first, second])
    n = len(first)
    logits = (views @ views.T).float() / temperature
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=views.device), float("-inf"))
    target = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(logits, target), (logits.argmax(1) == target).float().mean().detach()
