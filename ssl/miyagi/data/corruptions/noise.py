"""Noise in each pixel and channel: of a sensor, of few photons, of broken elements."""

import math

import torch
from torch import Tensor

from miyagi.data.corruptions.draws import Draws


def gaussian(x: Tensor, draws: Draws, sigma: float) -> Tensor:
    """x + sigma n."""
    return x + sigma * draws.normal("noise", *x.shape[1:])


def speckle(x: Tensor, draws: Draws, sigma: float) -> Tensor:
    """x + sigma x n: the brighter, the noisier."""
    return x + sigma * x * draws.normal("noise", *x.shape[1:])


def impulse(x: Tensor, draws: Draws, share: float) -> Tensor:
    """Salt and pepper: half of `share` become 1, half 0."""
    u = draws.uniform("noise", *x.shape[1:])
    return torch.where(u < share / 2, 0.0, torch.where(u >= 1 - share / 2, 1.0, x))


def shot(x: Tensor, draws: Draws, photons: float) -> Tensor:
    """Poisson(photons x) / photons, by the inverse of its distribution function; x is taken to 8 bits first."""
    levels = (x * 255).round().to(torch.int64)
    most = math.ceil(photons + 9 * math.sqrt(photons) + 10)  # beyond what 24 bits can draw
    count = torch.arange(most, device=x.device, dtype=torch.float64)
    rate = torch.arange(256, device=x.device, dtype=torch.float64)[:, None] * (photons / 255)
    below = torch.special.gammaincc(count + 1, rate)  # P(Poisson(rate) <= count), 256 x most
    below[0] = 1
    below[:, -1] = 1
    # One sorted line for all levels: that of level l lies in [l, l + 1].
    line = (below + torch.arange(256, device=x.device)[:, None]).flatten()
    u = draws.uniform("noise", *x.shape[1:]).to(torch.float64)
    found = torch.searchsorted(line, levels + u, right=True) - levels * most
    return found.to(torch.float32) / photons
