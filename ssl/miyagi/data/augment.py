"""Augmentation as batched tensor operations with counter-based draws.

Every operation draws for each sample from its own stream (data/rng.py) and computes from that sample alone, so its
pixels do not depend on the batch it is in. What operations do to pixels is in boxes, geometry, blur, color and jitter.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from miyagi.data.blur import blur
from miyagi.data.boxes import ATTEMPTS, Side, between, boxes, squares
from miyagi.data.color import drop_colors, gray, mean, solarize
from miyagi.data.geometry import cutout, resample, rotate, shift
from miyagi.data.jitter import factors, jitter_, passes_before_hue
from miyagi.data.rng import Key, normal, uniform, uniforms
from miyagi.errors import UserError
from miyagi.settings import ViewRecipe

CHUNK = 2**20
"""Numbers in a tensor that is worked on at a time: few enough for a cache, enough to hide what a call costs."""
DRAWS = {
    "crop": 4 * ATTEMPTS,
    "pad": 2,
    "flip": 1,
    "rotate": 2,
    "jitter": 9,
    "gray": 1,
    "color_drop": 2,
    "blur": 2,
    "solarize": 1,
    "cutout": 4,
}
"""How many numbers an operation draws for a sample. Where it may be left out, the first says whether it is."""
Noise = Callable[[Tensor, Tensor], Tensor]
"""(rows, part) -> standard normal draws for the samples `rows` of a chunk, shaped like `part`."""


def augment(
    images: Tensor, index: Tensor, key: Key, view: str, recipe: ViewRecipe, size: int, *, cropped: bool = False
) -> Tensor:
    """One view of a batch.

    Args:
        images: N x 3 x H x W uint8, or floats in [0, 1].
        index: N int64, the samples' indices: the name of their draws.
        key: seed and epoch.
        view: the view's name; views with different names share no draw.
        recipe: which operations, and in which order.
        size: side of the result, in pixels.
        cropped: the images are the boxes of `crop_boxes`, resized to size x size already.

    Returns:
        N x 3 x size x size float32 in [0, 1], channels last in memory.

    Raises:
        UserError: cropped, and the recipe does something before it crops.
    """
    height, width = images.shape[2:]
    steps = recipe.steps()
    if cropped:
        _check_crop_is_first(steps)
    if cropped or (recipe.crop is None and (height, width) == (size, size)):
        steps.remove("crop")
    draws = uniforms(key, {f"{view}/{name}": DRAWS[name] for name in steps}, index)
    draws = {name: draws[f"{view}/{name}"] for name in steps}
    rows = torch.arange(len(index), device=index.device)
    if recipe.jitter and (own := draws.get("jitter")) is not None:  # it is fastest when samples are in this order
        rows = passes_before_hue(recipe.jitter, own[:, 5:], own[:, 0] < recipe.jitter.p).argsort(stable=True)
        images, index = images.index_select(0, rows), index[rows]
        draws = {name: own.index_select(0, rows) for name, own in draws.items()}
    box = _boxes(recipe, height, width, draws.get("crop"), index)
    mirror = torch.zeros(len(index), dtype=torch.bool, device=index.device)
    if ("crop", "flip") in pairwise(steps):
        steps.remove("flip")  # resampling does it at no cost
        mirror = draws["flip"][:, 0] < recipe.flip

    out = torch.empty((len(images), size, size, 3), device=images.device)
    chunk = max(1, CHUNK // (3 * max(height * width, size * size)))
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        x = images[part].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if not images.is_floating_point():
            x.div_(255)
        for name in steps:
            if name == "crop":
                x = resample(x, box[part], size, mirror[part])
            else:
                x = _operate(name, x, draws[name][part], recipe, _noise(key, f"{view}/{name}/noise", index[part]))
        for channel in range(3):
            out[..., channel].index_copy_(0, rows[part], x[:, channel])
    return out.permute(0, 3, 1, 2)


def crop_boxes(recipe: ViewRecipe, height: Side, width: Side, index: Tensor, key: Key, view: str) -> Tensor:
    """The part of each image that `augment` shows: N x 4 int64 (top, left, height, width).

    Without a crop in the recipe it is the largest centred square.

    Args:
        recipe, index, key, view: as for `augment`.
        height, width: the images', in pixels: of all of them, or N int64.

    Raises:
        UserError: the recipe does something before it crops.
    """
    _check_crop_is_first(recipe.steps())
    draws = uniform(key, f"{view}/crop", index, DRAWS["crop"]) if recipe.crop else None
    return _boxes(recipe, height, width, draws, index)


def _boxes(recipe: ViewRecipe, height: Side, width: Side, draws: Tensor | None, index: Tensor) -> Tensor:
    if recipe.crop is None or draws is None:
        return squares(height, width, index)
    return boxes(recipe.crop, height, width, draws)


def _check_crop_is_first(steps: list[str]) -> None:
    if steps[0] != "crop":
        raise UserError(f"augment.order: {steps[0]} before crop needs images of one size; put crop first")


def _noise(key: Key, stream: str, index: Tensor) -> Noise:
    return lambda rows, part: normal(key, stream, index[rows], part[0].numel()).reshape(part.shape)


def _operate(name: str, x: Tensor, draws: Tensor, recipe: ViewRecipe, noise: Noise) -> Tensor:
    """One operation on a chunk of n samples, which may work in its memory; draws: n x DRAWS[name]."""
    first, second = draws[:, 0], draws[:, -1]
    if name == "pad":
        return shift(x, recipe.pad, draws)
    if name == "flip":
        return _some(x, first < recipe.flip, lambda part, rows: part.flip(3))
    if name == "rotate" and (by := recipe.rotate):
        angle = between((-by.degrees, by.degrees), second)
        return _some(x, first < by.p, lambda part, rows: rotate(part, angle[rows]))
    if name == "jitter" and recipe.jitter:
        return jitter_(x, *factors(recipe.jitter, draws[:, 1:5]), draws[:, 5:], first < recipe.jitter.p)
    if name == "gray":
        return _some(x, first < recipe.gray, lambda part, rows: gray(part))
    if name == "color_drop" and (drop := recipe.color_drop):
        kept = (3 * second).to(torch.int64)

        def dropped(part: Tensor, rows: Tensor) -> Tensor:
            return drop_colors(part, kept[rows], noise(rows, part) if drop.fill == "noise" else None)

        return _some(x, first < drop.p, dropped)
    if name == "blur" and recipe.blur:
        sigma = between(recipe.blur.sigma, second)
        return _some(x, first < recipe.blur.p, lambda part, rows: blur(part, sigma[rows]))
    if name == "solarize":
        return _some(x, first < recipe.solarize, lambda part, rows: solarize(part, recipe.solarize_threshold))
    if name == "cutout" and (hole := recipe.cutout):
        side = between(hole.side, draws[:, 1])

        def covered(part: Tensor, rows: Tensor) -> Tensor:
            fill = mean(part)[:, :, 0, 0] if hole.fill == "mean" else torch.full_like(part[:, :, 0, 0], 0.5)
            return cutout(part, side[rows], draws[rows, 2:], fill)

        return _some(x, first < hole.p, covered)
    raise ValueError(name)


def _some(x: Tensor, happens: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """x, changed by `operation`, which gets the samples that it happens to (happens: n, bool) and their positions."""
    rows = happens.nonzero()[:, 0]
    if len(rows) == len(x):
        return x.copy_(operation(x, rows))
    return x.index_copy_(0, rows, operation(x.index_select(0, rows), rows)) if len(rows) else x
