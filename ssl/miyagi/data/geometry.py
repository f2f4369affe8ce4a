"""Operations that move pixels: resampling of boxes, shifts, rotations, cutout.

All take N x 3 x H x W floats. Resizing is two small matrix products a sample, out = R x C^T with R and C (N x out x in)
the weights of rows and columns: antialiasing is exact, and crop, resize and flip are one operation.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def weights(start: Tensor, length: Tensor, source: int, size: int, mirror: Tensor) -> Tensor:
    """Triangle-filter weights that resize [start, start + length) of `source` pixels to `size` (N x size x source).

    The filter is widened where the image shrinks, as PIL does and torchvision's `antialias=True`.

    Args:
        start, length: N, int64.
        source, size: pixels before and after.
        mirror: N, bool: where the result is read backwards.
    """
    start, length = start[:, None].to(torch.float32), length[:, None].to(torch.float32)
    scale = length / size
    place = torch.arange(size, device=start.device, dtype=torch.float32)
    place = torch.where(mirror[:, None], size - 1 - place, place)
    centre = ((place + 0.5) * scale)[:, :, None]
    pixel = (torch.arange(source, device=start.device) - start + 0.5)[:, None]
    one = torch.ones((), device=start.device)
    if source <= size:  # nothing shrinks: two taps that add up to 1, as soon as none lies outside of the box
        centre = centre.clamp(min=0.5).minimum(length[:, None] - 0.5)
        distance = (pixel - centre).abs_()
        return torch.sub(one, distance, out=distance).clamp_(min=0)
    reach = scale.clamp(min=1)[:, None]
    distance = (pixel / reach - centre / reach).abs_()
    # At most 0 for a pixel inside of the box, at least 2 outside.
    outside = 1 - 2 * torch.minimum(pixel, length[:, None] - pixel)
    torch.maximum(distance, outside, out=distance)
    weight = torch.sub(one, distance, out=distance).clamp_(min=0)
    return weight.div_(weight.sum(2, keepdim=True))


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows x X x columns^T for each sample and channel (N x 3 x H' x W'; in memory one channel after the other).

    Args:
        x: N x 3 x H x W.
        rows: N x H' x H.
        columns: N x W' x W.
    """
    n, channels, height, width = x.shape
    half = torch.bmm(x.reshape(n, channels * height, width), columns.transpose(1, 2)).reshape(n, channels, height, -1)
    out = x.new_empty(channels, n, rows.shape[1], half.shape[3])
    for channel in range(channels):
        torch.bmm(rows, half[:, channel], out=out[channel])
    return out.transpose(0, 1)


def resample(x: Tensor, box: Tensor, size: int, flip: Tensor) -> Tensor:
    """Crop each sample's box, resize it to size x size (bilinear, antialiased) and mirror it where `flip` is true.

    Args:
        x: N x 3 x H x W.
        box: N x 4: top, left, height, width.
        size: side of the result.
        flip: N, bool.
    """
    top, left, height, width = box.unbind(1)
    straight = torch.zeros_like(flip)
    if x.shape[2] == x.shape[3]:  # both axes in one go
        starts, lengths = torch.cat([top, left]), torch.cat([height, width])
        rows, columns = weights(starts, lengths, x.shape[2], size, torch.cat([straight, flip])).chunk(2)
    else:
        rows = weights(top, height, x.shape[2], size, straight)
        columns = weights(left, width, x.shape[3], size, flip)
    return separable(x, rows, columns)


def shift(x: Tensor, pad: int, draws: Tensor) -> Tensor:
    """Crop of the image's own size from the image with `pad` reflected pixels around it; draws: N x 2 in [0, 1)."""
    _, channels, height, width = x.shape

    def source(side: int, draw: Tensor) -> Tensor:
        start = torch.floor(draw * (2 * pad + 1)).to(torch.int64) - pad
        position = (start[:, None] + torch.arange(side, device=x.device)).abs()
        return side - 1 - (side - 1 - position).abs()

    rows, columns = source(height, draws[:, 0]), source(width, draws[:, 1])
    place = (rows[:, :, None] * width + columns[:, None]).flatten(1)
    return x.flatten(2).gather(2, place[:, None].expand(-1, channels, -1)).reshape(x.shape)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn each sample counter-clockwise about its centre (bilinear); what lies outside is black.

    Args:
        x: N x 3 x H x W.
        degrees: N.
    """
    height, width = x.shape[2:]
    angle = (degrees.to(torch.float64) * (math.pi / 180))[:, None, None]
    cos, sin = angle.cos().to(torch.float32), angle.sin().to(torch.float32)
    v = torch.arange(height, device=x.device)[:, None] - (height - 1) / 2
    u = torch.arange(width, device=x.device) - (width - 1) / 2
    grid = torch.stack([(cos * u - sin * v) * (2 / width), (sin * u + cos * v) * (2 / height)], 3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def cutout(x: Tensor, side: Tensor, centre: Tensor, fill: Tensor) -> Tensor:
    """Cover a square of each sample (DeVries and Taylor, 2017); it may reach over the border.

    Args:
        x: N x 3 x H x W.
        side: N: the square's side as a share of the image's shorter one.
        centre: N x 2 in [0, 1): its row and column as shares of height and width.
        fill: N x 3, or anything that broadcasts to it: the colour.
    """
    height, width = x.shape[2:]
    length = (side * min(height, width)).round()

    def covered(pixels: int, middle: Tensor) -> Tensor:
        start = (torch.floor(middle * pixels) - torch.floor(length / 2))[:, None]
        place = torch.arange(pixels, device=x.device)
        return ((place >= start) & (place < start + length[:, None])).to(x.dtype)

    rows, columns = covered(height, centre[:, 0]), covered(width, centre[:, 1])
    hidden = rows[:, None, :, None] * columns[:, None, None, :]
    return x * (1 - hidden) + fill[..., None, None] * hidden
