"""Fog, frost, snow and splashes: layers that are drawn and laid over the image."""

import math

import torch
from torch import Tensor

from miyagi.data.color import gray
from miyagi.data.corruptions.blur import SIDE, magnify, smooth, trail
from miyagi.data.corruptions.draws import Draws

WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)


def plasma(draws: Draws, what: str, side: int, decay: float) -> Tensor:
    """A fractal height map by midpoint displacement, in [0, 1] (Fournier, Fussell and Carpenter, CACM 1982).

    On a torus whose side is a power of two, each point is the mean of its four neighbours plus a random shift that
    falls by `decay` from one scale to the next.

    Args:
        draws: whose.
        what: names the map's draws.
        side: of the part that is returned, in pixels.
        decay: the larger, the smoother.

    Returns:
        N x 1 x side x side.
    """
    whole = 1 << (side - 1).bit_length()
    height = torch.zeros(len(draws.index), whole, whole, device=draws.index.device)
    step, amplitude = whole, 100.0
    while step >= 2:
        half = step // 2

        def shifted(name: str, total: Tensor, amplitude: float = amplitude, step: int = step) -> Tensor:
            u = 2 * draws.uniform(f"{what}/{step}/{name}", *total.shape[1:]) - 1
            return total / 4 + amplitude * amplitude * u

        corner = height[:, ::step, ::step]
        beside = corner + corner.roll(-1, 1)
        centre = shifted("centre", beside + beside.roll(-1, 2))
        height[:, half::step, half::step] = centre
        height[:, ::step, half::step] = shifted("row", centre + centre.roll(1, 1) + corner + corner.roll(-1, 2))
        height[:, half::step, ::step] = shifted("column", centre + centre.roll(1, 2) + corner + corner.roll(-1, 1))
        step, amplitude = half, amplitude / decay
    low = height.amin((1, 2), keepdim=True)
    height = (height - low) / (height.amax((1, 2), keepdim=True) - low)
    return height[:, None, :side, :side]


def fog(x: Tensor, draws: Draws, amount: float, decay: float) -> Tensor:
    """The image under a plasma, dimmed so that its brightest pixel stays as bright."""
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + amount * plasma(draws, "fog", x.shape[3], decay)) * brightest / (brightest + amount)


def frost(x: Tensor, draws: Draws, image: float, ice: float) -> Tensor:
    """image x + ice t, with t bright ridges, a little blue, where a plasma is near its middle height."""
    height = plasma(draws, "frost", x.shape[3], 1.8)
    middle = height.mean((2, 3), keepdim=True)
    ridges = (1 - 4 * (height - middle).abs()).clamp(min=0)
    tint = torch.tensor([0.85, 0.93, 1.0], device=x.device)[:, None, None]
    return image * x + ice * ridges * tint


def snow(
    x: Tensor,
    draws: Draws,
    mean: float,
    sigma: float,
    size: float,
    threshold: float,
    radius: float,
    blur: float,
    image: float,
) -> Tensor:
    """Flakes that have fallen a little way, once as they are and once upside down, on an image that has grown pale.

    Args:
        x: N x 3 x S x S.
        draws: of the flakes and the direction that they fall in.
        mean, sigma: of the noise that the flakes are made of.
        size: its magnification.
        threshold: what is below becomes no flake.
        radius, blur: of the trail, in pixels.
        image: share of the image in the pale one.
    """
    side = x.shape[3]
    scale = side / SIDE
    noise = mean + sigma * draws.normal("flakes", 1, side, side)
    flakes = magnify(noise, size * scale)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    flakes = trail(flakes, radius * scale, blur * scale, -90 * draws.uniform("angle", 1)[:, 0] - 45)
    pale = image * x + (1 - image) * torch.maximum(x, 1.5 * gray(x) + 0.5)
    return pale + flakes + flakes.flip(2, 3)


def spatter(
    x: Tensor, draws: Draws, mean: float, sigma: float, grain: float, threshold: float, amount: float, mud: bool
) -> Tensor:
    """Drops of water that brighten, or splashes of mud that hide.

    Args:
        x: N x 3 x S x S.
        draws: of the drops.
        mean, sigma: of the noise that the drops are made of.
        grain: the noise's blur, in pixels.
        threshold: what is below is dry.
        amount: water: how much it brightens; mud: the splashes' blur, in pixels.
        mud: mud or water.
    """
    side = x.shape[3]
    wet = smooth(mean + sigma * draws.normal("drops", 1, side, side), grain * side / SIDE)
    color = torch.tensor(MUD if mud else WATER, device=x.device)[:, None, None]
    if mud:
        splash = smooth((wet > threshold).to(x.dtype), amount * side / SIDE)
        splash = torch.where(splash < 0.8, 0.0, splash)
        return x * (1 - splash) + color * splash
    drops = torch.where(wet < threshold, 0.0, wet)
    drops = drops / drops.amax((2, 3), keepdim=True).clamp(min=math.ulp(1.0))
    return x + (amount * drops).clamp(0, 1) * color
