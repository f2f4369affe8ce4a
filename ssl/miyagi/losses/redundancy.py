"""Losses on the statistics of a batch: two views agree, and the dimensions of an embedding do not repeat one another.

The batch is what they are made of: with several processes the caller gathers it. At least two images.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from miyagi.losses.pairs import in_fp32


class BarlowTwinsTerms(NamedTuple):
    """The two terms, each a sum over dimensions (scalars)."""

    invariance: Tensor
    redundancy: Tensor


class VICRegTerms(NamedTuple):
    """The three terms, unweighted (scalars)."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


@in_fp32
def barlow_twins(first: Tensor, second: Tensor, eps: float = 1e-5) -> BarlowTwinsTerms:
    """Barlow Twins' terms (Zbontar et al., ICML 2021, equations 1 and 2): L = invariance + lambda redundancy, with

        invariance = sum_i (1 - C_ii)^2,  redundancy = sum_i sum_{j != i} C_ij^2,
        C_ij = mean over the batch of a_i b_j,  a and b standardised over the batch.

    Args:
        first, second: N x D, the embeddings of two views of N >= 2 images.
        eps: added to the variance, as BatchNorm does.
    """
    correlation = _standardized(first, eps).T @ _standardized(second, eps) / len(first)
    diagonal = correlation.diagonal()
    return BarlowTwinsTerms((1 - diagonal).square().sum(), _off_diagonal(correlation).square().sum())


@in_fp32
def vicreg(first: Tensor, second: Tensor, eps: float = 1e-4) -> VICRegTerms:
    """VICReg's terms (Bardes, Ponce and LeCun, ICLR 2022, equations 1 to 6); L is their weighted sum.

        invariance = mean of (a - b)^2 over images and dimensions,
        variance = (v(a) + v(b)) / 2,  v(z) = mean_j max(0, 1 - sqrt(Var(z_j) + eps)),
        covariance = c(a) + c(b),  c(z) = (1 / D) sum_{i != j} Cov(z)_ij^2.

    As in the authors' code, invariance is a mean over the D dimensions and variance is that of an average view; the
    paper's equations have a sum over them, and the sum of both views.

    Args:
        first, second: N x D, the embeddings of two views of N >= 2 images.
        eps: keeps the root's gradient finite where a dimension is constant.
    """
    hinges, covariances = [], []
    for z in (first, second):
        centred = z - z.mean(0)
        covariance = centred.T @ centred / (len(z) - 1)
        hinges.append((1 - (covariance.diagonal() + eps).sqrt()).clamp(min=0).mean())
        covariances.append(_off_diagonal(covariance).square().sum() / z.shape[1])
    return VICRegTerms((first - second).square().mean(), (hinges[0] + hinges[1]) / 2, covariances[0] + covariances[1])


def _standardized(z: Tensor, eps: float) -> Tensor:
    variance, mean = torch.var_mean(z, 0, correction=0)
    return (z - mean) / (variance + eps).sqrt()


def _off_diagonal(square: Tensor) -> Tensor:
    """`square` with zeros on its diagonal."""
    return square - square.diagonal().diag()
