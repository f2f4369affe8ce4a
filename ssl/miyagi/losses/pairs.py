"""What the losses on queries, keys and negatives share: fp32 arithmetic, similarities and squared distances.

Shapes, here and in every loss of this kind: query N x D; key N x D, the positive of each query; negatives K x D, shared
by all queries, or N x K x D, each query's own; keep N x K, bool: which negatives a query may use (None: all; at least
one each). The caller normalises the vectors, or does not.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
HALF = (torch.float16, torch.bfloat16)


def in_fp32(loss: Callable[P, R]) -> Callable[P, R]:
    """Let `loss` compute in fp32, whatever the precision of its tensors and also under autocast.

    A bf16 similarity has 8 significant bits: divided by a temperature of 0.07, its error is larger than most gradients.
    Gradients come back in each input's own precision.
    """

    @wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        values = [*args, *kwargs.values()]
        device = next(value.device.type for value in values if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            wide = [x.float() if isinstance(x, Tensor) and x.dtype in HALF else x for x in args]
            named = {k: x.float() if isinstance(x, Tensor) and x.dtype in HALF else x for k, x in kwargs.items()}
            return loss(*wide, **named)  # type: ignore[arg-type]

    return run


def similarities(query: Tensor, key: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Dot products with the positive (N) and with the negatives (N x K)."""
    shared = negatives.ndim == 2
    return (query * key).sum(1), query @ negatives.T if shared else torch.einsum("nd,nkd->nk", query, negatives)


def squared_distances(query: Tensor, key: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Squared Euclidean distances to the positive (N) and to the negatives (N x K), never below zero.

    By |q|^2 + |k|^2 - 2 q.k, because the gradient of `torch.cdist` is not deterministic on a GPU.
    """
    _, dot = similarities(query, key, negatives)
    squares = negatives.square().sum(-1)
    far = query.square().sum(1, keepdim=True) + (squares if negatives.ndim == 3 else squares[None]) - 2 * dot
    return (query - key).square().sum(1), far.clamp(min=0)


def mean_over(values: Tensor, keep: Tensor | None) -> Tensor:
    """The mean of each row (N x K -> N) over what `keep` keeps."""
    if keep is None:
        return values.mean(1)
    return values.masked_fill(~keep, 0).sum(1) / keep.sum(1)


def count(negative: Tensor, keep: Tensor | None) -> Tensor:
    """How many negatives each query has (N, float)."""
    if keep is None:
        return negative.new_full((len(negative),), negative.shape[1])
    return keep.sum(1).to(negative.dtype)
