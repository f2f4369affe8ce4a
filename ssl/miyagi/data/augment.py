"""Augmentation as batched tensor operations with counter-based draws.

Every operation takes N x 3 x H x W floats in [0, 1] and draws for each sample from its own stream (data/rng.py), so a
sample's pixels do not depend on the batch it is in. Resizing and blurring are two small matrix products a sample:
out = R x C^T with R and C (N x out x in) the weights of rows and columns, which makes antialiasing exact and lets
crop, resize and flip be one operation.
"""

import math

import torch
from torch import Tensor

from miyagi.data.rng import Key, uniform
from miyagi.settings import Crop, Jitter, ViewRecipe

ATTEMPTS = 10
"""Random boxes tried before the centre is taken, as in Szegedy 2014's reference code."""
GRAY = (0.2989, 0.587, 0.114)
"""ITU-R BT.601 luma, the weights that PIL and torchvision use."""


def augment(images: Tensor, index: Tensor, key: Key, view: str, recipe: ViewRecipe, size: int) -> Tensor:
    """One view of a batch.

    Args:
        images: N x 3 x H x W uint8.
        index: N int64, the samples' indices: the name of their draws.
        key: seed and epoch.
        view: the view's name; views with different names share no draw.
        recipe: which operations, in the order of its fields.
        size: side of the result, in pixels.

    Returns:
        N x 3 x size x size float32 in [0, 1], channels last in memory.
    """
    x = images.to(torch.float32) / 255

    def draw(operation: str, n: int = 1) -> Tensor:
        return uniform(key, f"{view}/{operation}", index, n)

    flip = draw("flip")[:, 0] < recipe.flip
    height, width = x.shape[2:]
    if recipe.pad:
        x = _shift(x, recipe.pad, draw("pad", 2))
    if recipe.crop:
        box = boxes(recipe.crop, height, width, draw("crop", 4 * ATTEMPTS))
        x = resample(x, box, size, flip)
    elif (height, width) != (size, size):
        box = torch.tensor([0, 0, height, width], device=x.device).expand(len(x), 4)
        x = resample(x, box, size, flip)
    else:
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
    if recipe.jitter and recipe.jitter.p:
        chosen = (draw("jitter")[:, 0] < recipe.jitter.p).nonzero()[:, 0]
        strength, order = draw("jitter/strength", 4)[chosen], draw("jitter/order", 4)[chosen].argsort(1)
        x = x.index_copy(0, chosen, jitter(x[chosen], *factors(recipe.jitter, strength), order))
    if recipe.gray:
        x = torch.where(draw("gray")[:, :, None, None] < recipe.gray, gray(x), x)
    if recipe.blur and recipe.blur.p:
        chosen = (draw("blur")[:, 0] < recipe.blur.p).nonzero()[:, 0]
        x = x.index_copy(0, chosen, blur(x[chosen], _between(recipe.blur.sigma, draw("blur/sigma")[chosen, 0])))
    if recipe.solarize:
        x = torch.where(draw("solarize")[:, :, None, None] < recipe.solarize, solarize(x), x)
    return x.contiguous(memory_format=torch.channels_last)


def _between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def boxes(crop: Crop, height: int, width: int, draws: Tensor) -> Tensor:
    """Boxes (top, left, height, width; N x 4, int64) of random resized crops.

    The first of ten random boxes that fits is taken, else the largest centred one whose aspect ratio is allowed.

    Args:
        crop: bounds of area and aspect ratio (width / height; its logarithm is uniform).
        height, width: the image's, in pixels.
        draws: N x 40 in [0, 1).
    """
    area, ratio, top, left = draws.to(torch.float64).reshape(len(draws), ATTEMPTS, 4).unbind(2)
    area = height * width * _between(crop.scale, area)
    ratio = torch.exp(_between((math.log(crop.ratio[0]), math.log(crop.ratio[1])), ratio))
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    # One more candidate, which always fits: the centre.
    aspect = min(max(width / height, crop.ratio[0]), crop.ratio[1])
    centre_w, centre_h = min(width, round(height * aspect)), min(height, round(width / aspect))
    first = torch.where(fits.any(1), fits.int().argmax(1), ATTEMPTS)[:, None]

    def pick(values: Tensor, fallback: int) -> Tensor:
        last = torch.full_like(values[:, :1], fallback)
        return torch.cat([values, last], 1).gather(1, first)[:, 0].to(torch.int64)

    return torch.stack(
        [
            pick(torch.floor(top * (height - h + 1)), (height - centre_h) // 2),
            pick(torch.floor(left * (width - w + 1)), (width - centre_w) // 2),
            pick(h, centre_h),
            pick(w, centre_w),
        ],
        dim=1,
    )


def weights(start: Tensor, length: Tensor, source: int, size: int) -> Tensor:
    """Triangle-filter weights that resize [start, start + length) of `source` pixels to `size` (N x size x source).

    The filter is widened where the image shrinks, as PIL does and torchvision's `antialias=True`.
    """
    start, length = start[:, None, None].to(torch.float32), length[:, None, None].to(torch.float32)
    scale = length / size
    centre = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    pixel = torch.arange(source, device=start.device) - start + 0.5
    weight = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp(min=0) * ((pixel > 0) & (pixel < length))
    return weight / weight.sum(2, keepdim=True)


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows x X x columns^T for each sample and channel.

    Args:
        x: N x 3 x H x W.
        rows: N x H' x H.
        columns: N x W' x W.
    """
    n, channels, height, width = x.shape
    # Two batched products instead of six: the channels ride along in the free dimension.
    x = torch.bmm(x.reshape(n, channels * height, width), columns.transpose(1, 2))
    x = x.reshape(n, channels, height, -1).transpose(1, 2).reshape(n, height, -1)
    return torch.bmm(rows, x).reshape(n, rows.shape[1], channels, -1).transpose(1, 2)


def resample(x: Tensor, box: Tensor, size: int, flip: Tensor) -> Tensor:
    """Crop each sample's box, resize it to size x size (bilinear, antialiased) and mirror it where `flip` is true.

    Args:
        x: N x 3 x H x W.
        box: N x 4: top, left, height, width.
        size: side of the result.
        flip: N, bool.
    """
    top, left, height, width = box.unbind(1)
    rows = weights(top, height, x.shape[2], size)
    columns = weights(left, width, x.shape[3], size)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    return separable(x, rows, columns)


def gray(x: Tensor) -> Tensor:
    """Luma in three equal channels."""
    red, green, blue = (weight * channel for weight, channel in zip(GRAY, x.unbind(1), strict=True))
    return (red + green + blue)[:, None].expand_as(x)


def solarize(x: Tensor) -> Tensor:
    """Invert what is at least half bright."""
    return torch.where(x >= 0.5, 1 - x, x)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation for each sample; the kernel covers a tenth of the side (SimCLR).

    Args:
        x: N x 3 x S x S.
        sigma: N, in pixels.
    """
    n, _, height, width = x.shape
    radius = max(1, round(max(height, width) * 0.1) // 2)
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)

    def band(side: int) -> Tensor:
        position = torch.arange(side, device=x.device)
        source = (position[:, None] + offsets).abs()
        source = torch.where(source >= side, 2 * (side - 1) - source, source)  # reflected borders
        matrix = torch.zeros(n, side, side, device=x.device)
        return matrix.scatter_add_(2, source.expand(n, -1, -1), kernel[:, None].expand(n, side, -1))

    return separable(x, band(height), band(width))


Factor = Tensor | None
"""One number a sample, or None for an operation that is left out."""


def factors(settings: Jitter, draws: Tensor) -> tuple[Factor, Factor, Factor, Factor]:
    """Brightness, contrast and saturation factors and the hue's shift, each N, from N x 4 draws."""
    brightness, contrast, saturation, hue = draws.unbind(1)

    def around_one(strength: float, draw: Tensor) -> Factor:
        return _between((max(0.0, 1 - strength), 1 + strength), draw) if strength else None

    return (
        around_one(settings.brightness, brightness),
        around_one(settings.contrast, contrast),
        around_one(settings.saturation, saturation),
        _between((-settings.hue, settings.hue), hue) if settings.hue else None,
    )


def jitter(
    x: Tensor,
    brightness: Factor,
    contrast: Factor,
    saturation: Factor,
    hue: Factor,
    order: Tensor,
) -> Tensor:
    """Colour jitter, the operations in each sample's own order; None leaves one out.

    Args:
        x: N x 3 x H x W in [0, 1].
        brightness, contrast, saturation: factors, each N.
        hue: shift as a share of the colour circle, N.
        order: N x 4, a permutation of 0 to 3 (the arguments' order) for each sample.
    """
    operations = (
        (brightness, lambda part, factor: part * factor[:, None, None, None]),
        (contrast, lambda part, factor: _blend(part, gray(part).mean((1, 2, 3), keepdim=True), factor)),
        (saturation, lambda part, factor: _blend(part, gray(part), factor)),
        (hue, shift_hue),
    )
    x = x.clone()
    for step in order.unbind(1):
        for number, (factor, operation) in enumerate(operations):
            if factor is not None:
                chosen = (step == number).nonzero()[:, 0]
                x[chosen] = operation(x[chosen], factor[chosen]).clamp_(0, 1)
    return x


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None]
    return factor * x + (1 - factor) * other


def shift_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of each sample by `shift` (N, a share of the colour circle), by way of HSV."""
    high, low = x.amax(1), x.amin(1)
    spread = high - low
    red, green, blue = x.unbind(1)
    safe = torch.where(spread == 0, 1.0, spread)
    hue = torch.where(
        high == red,
        ((green - blue) / safe) % 6,
        torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * shift[:, None, None]
    # Back from HSV without branches (Foley and van Dam's hexcone): channel n is V - C max(0, min(k, 4 - k, 1)).
    offset = torch.tensor([5.0, 3.0, 1.0], device=x.device)[:, None, None]
    k = (offset + hue[:, None]) % 6
    return high[:, None] - spread[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _shift(x: Tensor, pad: int, draws: Tensor) -> Tensor:
    """Crop of the image's own size from the image with `pad` reflected pixels around it; draws: N x 2."""
    n, _, height, width = x.shape

    def source(side: int, draw: Tensor) -> Tensor:
        start = torch.floor(draw * (2 * pad + 1)).to(torch.int64) - pad
        position = (start[:, None] + torch.arange(side, device=x.device)).abs()
        return torch.where(position >= side, 2 * (side - 1) - position, position)

    rows, columns = source(height, draws[:, 0]), source(width, draws[:, 1])
    x = x.gather(2, rows[:, None, :, None].expand(n, 3, height, width))
    return x.gather(3, columns[:, None, None, :].expand(n, 3, height, width))
