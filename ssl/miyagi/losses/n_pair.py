"""The multi-class N-pair loss (Sohn, NeurIPS 2016, equation 5): InfoNCE at temperature 1, without l2 normalisation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import in_fp32, similarities


@in_fp32
def n_pair(query: Tensor, key: Tensor, negatives: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """L = log(1 + sum_i exp(q.k_i - q.k+)), the mean over the queries (scalar).

    Args:
        query, key, negatives, keep: see losses/pairs.py; the paper's negatives are the keys of the other queries.
    """
    positive, negative = similarities(query, key, negatives)
    if keep is not None:
        negative = negative.masked_fill(~keep, float("-inf"))
    return F.softplus(torch.logsumexp(negative - positive[:, None], 1)).mean()
