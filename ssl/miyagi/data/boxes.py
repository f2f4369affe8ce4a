"""Which part of an image a view shows: boxes (top, left, height, width; N x 4 int64, in pixels)."""

import math

import torch
from torch import Tensor

from miyagi.settings import Crop

ATTEMPTS = 10
"""Random boxes tried before the centre is taken, as in Szegedy 2014's reference code."""
Side = int | Tensor
"""One side of the images, in pixels: of all of them, or N int64."""


def boxes(crop: Crop, height: Side, width: Side, draws: Tensor) -> Tensor:
    """Boxes of random resized crops.

    The first of ten random boxes that fits is taken, else the largest centred one whose aspect ratio is allowed.

    Args:
        crop: bounds of area and aspect ratio (width / height; its logarithm is uniform).
        height, width: the images', in pixels.
        draws: N x 40 in [0, 1).
    """
    sides = torch.cat([_column(height, draws), _column(width, draws)], 1)
    area, ratio, *_ = (draws := draws.to(torch.float64).reshape(-1, ATTEMPTS, 4)).unbind(2)
    area = between(crop.scale, area) * sides.prod(1, keepdim=True)
    ratio = between((math.log(crop.ratio[0]), math.log(crop.ratio[1])), ratio) / 2
    # From here on, the last dimension is height, width.
    found = (torch.stack([-ratio, ratio], 2).exp() * area.sqrt()[:, :, None]).round()
    space = sides[:, None] - found
    fits = ((found > 0) & (space >= 0)).all(2)
    first = fits.int().argmax(1)
    row = torch.arange(len(draws), device=draws.device)
    found, space, place = found[row, first], space[row, first], draws[row, first, 2:]
    box = torch.cat([(place * (space + 1)).floor(), found], 1)
    if not fits.any(1).all():
        box = torch.where(fits.any(1, keepdim=True), box, centre(crop.ratio, *sides.split(1, 1)))
    return box.to(torch.int64)


def squares(height: Side, width: Side, index: Tensor) -> Tensor:
    """The largest centred square of each image; index (N) says how many images there are."""
    return centre((1.0, 1.0), _column(height, index), _column(width, index)).to(torch.int64)


def centre(ratio: tuple[float, float], height: Tensor, width: Tensor) -> Tensor:
    """The largest centred boxes (N x 4 float64) with an aspect ratio within bounds; height, width: N x 1 float64."""
    aspect = (width / height).clamp(*ratio)
    h, w = torch.minimum(height, (width / aspect).round()), torch.minimum(width, (height * aspect).round())
    return torch.cat([((height - h) / 2).floor(), ((width - w) / 2).floor(), h, w], 1)


def between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    """Draws in [0, 1) as draws in [low, high)."""
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _column(side: Side, like: Tensor) -> Tensor:
    """N x 1 float64."""
    side = torch.as_tensor(side, dtype=torch.float64, device=like.device)
    return side.reshape(-1, 1).expand(len(like), 1)
