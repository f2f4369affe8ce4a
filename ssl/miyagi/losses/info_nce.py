"""InfoNCE (van den Oord et al., 2018) in its common forms, and with hard negatives weighted up.

L = -log( exp(q.k+ / tau) / sum_i exp(q.k_i / tau) ),  the sum over one positive and the negatives.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import count, in_fp32, similarities

LOWEST = float("-inf")


@in_fp32
def info_nce(
    query: Tensor,
    key: Tensor,
    negatives: Tensor,
    temperature: float,
    *,
    keep: Tensor | None = None,
    beta: float = 0.0,
    tau_plus: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """InfoNCE with one positive a query (MoCo, He et al. 2020, equation 1); shapes: see losses/pairs.py.

    With beta or tau_plus above 0 the sum over the K negatives, S, becomes that of Robinson et al. (ICLR 2021, equations
    4 to 6 and their code): negatives are weighted by how near they are, and the share of them that are of the query's
    own class is taken out (Chuang et al., NeurIPS 2020),

        S = max( (K sum_i w_i exp(q.k_i / tau) - tau_plus K exp(q.k+ / tau)) / (1 - tau_plus),  K exp(-1 / tau) ),
        w_i = exp(beta q.k_i / tau) / sum_j exp(beta q.k_j / tau).

    Args:
        query: N x D.
        key: N x D.
        negatives: K x D or N x K x D.
        temperature: tau > 0.
        keep: N x K or None.
        beta: how much nearer negatives weigh more; 0: all alike.
        tau_plus: assumed share of negatives that are false, in [0, 1); above 0 only for vectors of unit length.

    Returns:
        The mean loss (scalar), and the share of queries whose positive is nearer than all negatives (scalar, no
        gradient): none where a network has collapsed, and all are as near.
    """
    positive, negative = (similarity / temperature for similarity in similarities(query, key, negatives))
    if keep is not None:
        negative = negative.masked_fill(~keep, LOWEST)
    accuracy = (positive > negative.amax(1)).float().mean().detach()
    if beta == 0 and tau_plus == 0:
        logits = torch.cat([positive[:, None], negative], 1)
        return F.cross_entropy(logits, positive.new_zeros(len(query), dtype=torch.int64)), accuracy
    number = count(negative, keep)
    weight = beta * negative if keep is None else (beta * negative).masked_fill(~keep, LOWEST)
    log_sum = torch.logsumexp(negative + weight, 1) - torch.logsumexp(weight, 1) + number.log()
    # Everything relative to the larger term, which is at most e^0: nothing overflows at a small temperature.
    top = torch.maximum(positive, log_sum).detach()
    own, others = (positive - top).exp(), (log_sum - top).exp()
    if tau_plus > 0:
        others = (others - tau_plus * number * own) / (1 - tau_plus)
        others = torch.maximum(others, number * (-1 / temperature - top).exp())
    return ((own + others).log() - (positive - top)).mean(), accuracy


@in_fp32
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
    logits = (views @ views.T) / temperature
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=views.device), LOWEST)
    target = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(logits, target), (logits.argmax(1) == target).float().mean().detach()
