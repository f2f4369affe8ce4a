"""Colours as classes: the ab plane of Lab in bins, as Zhang, Isola and Efros (ECCV 2016) predict it.

A colour's answer is not one bin but a weight on each of its nearest ones (soft encoding); rare colours weigh more than
the greyish ones that most pixels have (class rebalancing); and a distribution over bins becomes one colour again by its
annealed mean, which lies between the mean (dull) and the mode (blotchy).
"""

from functools import cache

import torch
from torch import Tensor

from miyagi.data.lab import rgb_to_lab

REACH = 64
"""No bin is so many squares away from grey."""


@cache
def _gamut(side: float) -> Tensor:
    shades = torch.arange(256, dtype=torch.float64) / 255
    two = torch.cartesian_prod(shades, shades)
    # The cube's faces are enough: whatever ab a colour has, the darker and lighter ones that share it end there.
    ends = [(channel, torch.full_like(two[:, :1], end)) for channel in range(3) for end in (0, 1)]
    faces = [torch.cat([two[:, :channel], end, two[:, channel:]], 1) for channel, end in ends]
    ab = rgb_to_lab(torch.cat(faces).T.reshape(1, 3, 1, -1))[0, 1:, 0]
    row, column = (ab / side).floor().to(torch.int64) + REACH
    squares = torch.unique(row * 2 * REACH + column)
    corners = torch.unique(torch.cat([squares + step for step in (0, 1, 2 * REACH, 2 * REACH + 1)]))
    return (torch.stack([corners // (2 * REACH), corners % (2 * REACH)], 1) - REACH) * side


def gamut(side: float) -> Tensor:
    """The bins' centres, Q x 2 (a, b): the corners of all squares of a grid that hold a colour of 8-bit sRGB.

    Every colour lies among four bins, so its soft encoding can say where. Side 10 makes 309 (the paper has 313).

    Args:
        side: of the grid's squares, in units of a and b.
    """
    return _gamut(side).to(torch.float32)


def nearest(ab: Tensor, bins: Tensor, neighbors: int = 1) -> tuple[Tensor, Tensor]:
    """The `neighbors` nearest bins of each colour, nearest first, and their squared distances.

    Args:
        ab: N x 2 x H x W.
        bins: Q x 2.

    Returns:
        N x H x W x neighbors, int64; and the same, float.
    """
    colors = ab.permute(0, 2, 3, 1)[..., None, :]
    distance = (colors[..., 0] - bins[:, 0]).square() + (colors[..., 1] - bins[:, 1]).square()
    found = distance.topk(neighbors, dim=3, largest=False, sorted=True)
    return found.indices, found.values


def soft_encode(ab: Tensor, bins: Tensor, neighbors: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Each colour as weights on its nearest bins: w_k = exp(-d_k^2 / (2 sigma^2)), scaled to sum to 1 (section 2.2).

    Args:
        ab: N x 2 x H x W.
        bins: Q x 2.
        neighbors: bins that share a colour; 1: the nearest alone.
        sigma: in units of a and b.

    Returns:
        Which bins (N x H x W x neighbors, int64, nearest first) and their weights (the same, float).
    """
    index, distance = nearest(ab, bins, neighbors)
    return index, torch.softmax(-distance / (2 * sigma**2), 3)


def rebalancing(prior: Tensor, bins: Tensor, sigma: float, uniform: float) -> Tensor:
    """How much a pixel of each bin weighs (Q): w ~ 1 / ((1 - uniform) p~ + uniform / Q), with sum_q p~_q w_q = 1.

    p~ is the prior, smoothed by a Gaussian over the ab plane (equation 4).

    Args:
        prior: Q: the share, or the number, of pixels whose nearest bin it is.
        bins: Q x 2.
        sigma: of the smoothing, in units of a and b.
        uniform: lambda: the uniform distribution's share of the mixture; 1: every pixel weighs 1.
    """
    kernel = torch.exp(-torch.cdist(bins.double(), bins.double()).square() / (2 * sigma**2))
    smooth = (prior.double() / prior.sum())[None] @ (kernel / kernel.sum(1, keepdim=True))
    weight = 1 / ((1 - uniform) * smooth[0] + uniform / len(bins))
    return (weight / (smooth[0] * weight).sum()).to(torch.float32)


def annealed_mean(logits: Tensor, bins: Tensor, temperature: float) -> Tensor:
    """The mean colour under softmax(logits / T), N x 2 x H x W (equation 5); T 1: the mean, T -> 0: the mode.

    Args:
        logits: N x Q x H x W.
        bins: Q x 2.
        temperature: T > 0; the paper draws with 0.38.
    """
    return torch.einsum("nqhw,qc->nchw", torch.softmax(logits.float() / temperature, 1), bins)
