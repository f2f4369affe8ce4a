"""Noise-contrastive estimation (Gutmann and Hyvarinen 2010) of the non-parametric softmax (Wu et al., CVPR 2018).

Is this feature from the data, or one of m samples of noise that is uniform over the n images? (equations 5 to 7)

    P(i | v) = exp(v.f_i / tau) / Z,    h(i, v) = P(i | v) / (P(i | v) + m / n),
    L = -log h(i+, v) - sum over the m samples of log(1 - h(i, v)).

Z is a constant: n times the mean of exp(v.f / tau) over the first batches (equation 8). Minimising -log P alone with a
constant Z, as it is sometimes written, pushes nothing away: the second term is what makes negatives move.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import count, in_fp32, similarities


@in_fp32
def nce(
    query: Tensor,
    key: Tensor,
    negatives: Tensor,
    temperature: float,
    *,
    n: int,
    log_z: Tensor | float,
    keep: Tensor | None = None,
) -> Tensor:
    """The mean loss over the queries (scalar); shapes: see losses/pairs.py.

    Args:
        query: v, N x D.
        key: N x D, the bank's feature of each query's image.
        negatives: m x D or N x m x D, features of images drawn uniformly.
        temperature: tau > 0 (paper: 0.07).
        n: images in the data.
        log_z: log Z, held constant; `log_partition` measures it.
        keep: N x m or None.
    """
    positive, negative = similarities(query, key, negatives)
    # h = sigmoid(a), a = log P - log(m / n): only the difference of logarithms is computed, so nothing overflows.
    shift = log_z + count(negative, keep).log() - math.log(n)
    data = F.softplus(shift - positive / temperature)
    noise = F.softplus(negative / temperature - shift[:, None])
    if keep is not None:
        noise = noise.masked_fill(~keep, 0)
    return (data + noise.sum(1)).mean()


@in_fp32
def log_partition(
    query: Tensor, negatives: Tensor, temperature: float, *, n: int, keep: Tensor | None = None
) -> Tensor:
    """log Z ~ log( n mean exp(v.f / tau) ), the mean over queries and their negatives (equation 8).

    Returns:
        A scalar without gradient.
    """
    _, negative = similarities(query.detach(), query.detach(), negatives.detach())
    chosen = (negative.flatten() if keep is None else negative[keep]) / temperature
    return torch.logsumexp(chosen, 0) - math.log(chosen.numel()) + math.log(n)
