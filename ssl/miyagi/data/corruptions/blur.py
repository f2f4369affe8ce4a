"""Blurs: of a lens out of focus, of frosted glass, of a moving camera, of one that comes nearer."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.corruptions.draws import Draws

SIDE = 32
"""The side of the images that the constants are for, in pixels."""


def gaussian(x: Tensor, draws: Draws, sigma: float) -> Tensor:
    """A Gaussian cut off at 4 sigma; the border pixel goes on outside."""
    return smooth(x, sigma * x.shape[3] / SIDE)


def smooth(x: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """The same Gaussian for every sample of x (... x S x S), sigma in pixels, cut off at `truncate` sigma."""
    side = x.shape[-1]
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2).to(x.dtype)
    place = torch.arange(side, device=x.device)
    band = torch.zeros(side, side, device=x.device, dtype=x.dtype)
    for offset, weight in zip(offsets.tolist(), kernel / kernel.sum(), strict=True):
        band[place, (place + offset).clamp(0, side - 1)] += weight  # no two of one offset meet in one place
    return band @ x @ band.T


def defocus(x: Tensor, draws: Draws, radius: float, alias: float) -> Tensor:
    """A disk of `radius` pixels, its edge softened by a Gaussian of `alias` pixels (3 x 3); reflected borders."""
    radius *= x.shape[3] / SIDE
    reach = math.ceil(radius) + 1
    grid = torch.arange(-reach, reach + 1, device=x.device)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).to(x.dtype)
    soft = torch.exp(-0.5 * (torch.arange(-1, 2, device=x.device) / alias) ** 2).to(x.dtype)
    soft = soft / soft.sum()
    kernel = F.conv2d((disk / disk.sum())[None, None], (soft[:, None] * soft)[None, None], padding=1)
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)


def glass(x: Tensor, draws: Draws, sigma: float, reach: int, iterations: int) -> Tensor:
    """Neighbouring pixels change places, one after the other, between two Gaussian blurs.

    Args:
        x: N x 3 x S x S.
        draws: of the places.
        sigma: of both blurs, in pixels.
        reach: how far a pixel goes at a time, in pixels.
        iterations: passes over the image.
    """
    n, _, side, _ = x.shape
    reach, sigma = max(1, round(reach * side / SIDE)), sigma * side / SIDE
    x = smooth(x, sigma)
    source = torch.arange(side * side, device=x.device)[:, None].repeat(1, n)  # place x sample -> where from
    sample = torch.arange(n, device=x.device)
    places = torch.arange(side - reach, reach, -1)
    for iteration in range(iterations):
        moves = draws.uniform(f"places/{iteration}", len(places), len(places), 2)
        steps = torch.floor(2 * reach * moves).to(torch.int64) - reach
        partners = (steps[..., 0] * side + steps[..., 1]).permute(1, 2, 0)  # rows x columns x sample
        for i, row in enumerate(places.tolist()):
            for j, column in enumerate(places.tolist()):
                here = row * side + column
                there = here + partners[i, j]
                kept = source[here].clone()
                source[here] = source[there, sample]
                source[there, sample] = kept
    moved = x.flatten(2).gather(2, source.T[:, None].expand(-1, 3, -1)).reshape(x.shape)
    return smooth(moved, sigma)


def motion(x: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """A trail in a direction between -45 and 45 degrees."""
    degrees = 90 * draws.uniform("angle", 1)[:, 0] - 45
    return trail(x, radius * x.shape[3] / SIDE, sigma * x.shape[3] / SIDE, degrees)


def trail(x: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """Half a Gaussian along a line, as ImageMagick's motion blur: sum_i exp(-i^2 / 2 sigma^2) x(p + i (cos, sin)).

    Args:
        x: N x C x S x S.
        radius: the trail has 2 radius + 1 pixels.
        sigma: in pixels.
        degrees: N, the trail's direction.
    """
    _, channels, side, _ = x.shape
    taps = torch.arange(2 * math.ceil(radius) + 1, device=x.device)
    weight = torch.exp(-0.5 * (taps / sigma) ** 2).to(torch.float32)
    weight = weight / weight.sum()
    angle = degrees.to(torch.float64) * (math.pi / 180)
    place = torch.arange(side, device=x.device)
    total = torch.zeros_like(x)
    for tap, share in zip(taps.tolist(), weight, strict=True):
        down = (place + torch.ceil(tap * angle.sin() - 0.5).to(torch.int64)[:, None]).clamp(0, side - 1)
        right = (place + torch.ceil(tap * angle.cos() - 0.5).to(torch.int64)[:, None]).clamp(0, side - 1)
        where = (down[:, :, None] * side + right[:, None]).flatten(1)
        total += share * x.flatten(2).gather(2, where[:, None].expand(-1, channels, -1)).reshape(x.shape)
    return total


def zoom(x: Tensor, draws: Draws, farthest: float) -> Tensor:
    """The mean of the image and its magnifications by 1, 1.01 ... up to, but not, `farthest`."""
    steps = round((farthest - 1) * 100)
    return (x + sum(magnify(x, 1 + step / 100) for step in range(steps))) / (steps + 1)


def magnify(x: Tensor, factor: float) -> Tensor:
    """The centre of ... x S x S, `factor` times as large (bilinear)."""
    side = x.shape[-1]
    place = torch.arange(side, device=x.device, dtype=torch.float64)
    wanted = (side - 1) / 2 + (place - (side - 1) / 2) / factor
    weight = (1 - (place - wanted[:, None]).abs()).clamp(min=0).to(x.dtype)
    return weight @ x @ weight.T
