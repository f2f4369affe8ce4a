"""Augmentation as batched tensor operations with counter-based draws.

Every operation draws for each sample from its own stream (data/rng.py) and computes from that sample alone, so its
pixels do not depend on the batch it is in. What operations do to pixels is in boxes, geometry, blur, color and jitter.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from miyagi.data.blur import blur
from miyagi.data.boxes import ATTEMPTS, Side, between, boxes, squares
from miyagi.data.color import drop_colors, gray, mean, solarize
from miyagi.data.geometry import cutout, resample, rotate, shift
from miyagi.data.jitter import active, factors, jitter_, passes_before_hue
from miyagi.data.rng import Key, normal, uniform, uniforms
from miyagi.errors import UserError
from miyagi.settings import ViewRecipe

CHUNK = 2**21
"""Numbers in a tensor that is worked on at a time: few enough for a cache, enough to hide what a call costs."""
DRAWS = {
    "crop": 4 * ATTEMPTS,
    "pad": 2,
    "flip": 1,
    "rotate": 2,
    "jitter": 9,
    "gray": 1,
    "color_drop": 4,
    "blur": 2,
    "solarize": 1,
    "cutout": 4,
}
"""How many numbers an operation draws for a sample. Where it may be left out, the first says whether it is."""


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
    return _augment([images], index, key, [view], recipe, size, cropped)


def augment_views(
    images: Sequence[Tensor],
    index: Tensor,
    key: Key,
    views: Sequence[tuple[str, ViewRecipe, int]],
    *,
    cropped: bool = False,
) -> list[Tensor]:
    """`augment` for several views (name, recipe, size), faster: views of one recipe and size are made together.

    Args:
        images: for each view; the same tensor again, or where they were cropped already one each.
        index, key, cropped: as for `augment`.
    """
    found: dict[int, Tensor] = {}
    for recipe, size in dict.fromkeys(view[1:] for view in views):
        alike = [i for i, view in enumerate(views) if view[1:] == (recipe, size)]
        names = [views[i][0] for i in alike]
        made = _augment([images[i] for i in alike], index, key, names, recipe, size, cropped)
        found |= zip(alike, made.chunk(len(alike)), strict=True)
    return [found[i] for i in range(len(views))]


def _augment(
    images: Sequence[Tensor], index: Tensor, key: Key, names: list[str], recipe: ViewRecipe, size: int, cropped: bool
) -> Tensor:
    """Views of one recipe and size, one after the other: (V N) x 3 x size x size. From here on, n is V N."""
    height, width = images[0].shape[2:]
    steps = recipe.steps()
    if cropped:
        _check_crop_is_first(steps)
    if cropped or (recipe.crop is None and (height, width) == (size, size)):
        steps.remove("crop")
    drawn = uniforms(key, {f"{name}/{step}": DRAWS[step] for name in names for step in steps}, index)
    draws = {step: torch.cat([drawn[f"{name}/{step}"] for name in names]) for step in steps}

    rows = before_hue = torch.arange(len(names) * len(index), device=index.device)
    chunk = max(1, CHUNK // (3 * max(height * width, size * size)))
    if recipe.jitter and "jitter" in steps:  # it wants the samples of a chunk sorted
        happens, turn, kinds = draws["jitter"][:, 0] < recipe.jitter.p, draws["jitter"][:, 5:], active(recipe.jitter)
        before_hue = passes_before_hue(kinds, turn, happens)  # at most len(kinds) + 1
        rows = (rows // chunk * (len(kinds) + 2) + before_hue).argsort(stable=True)
        before_hue = before_hue.index_select(0, rows)
        draws = {step: own.index_select(0, rows) for step, own in draws.items()}
    same = all(image is images[0] for image in images)
    pixels = images[0].index_select(0, rows % len(index)) if same else torch.cat(list(images)).index_select(0, rows)
    box = _boxes(recipe, height, width, draws.get("crop"), rows)
    mirror = torch.zeros(len(rows), dtype=torch.bool, device=index.device)
    if ("crop", "flip") in pairwise(steps):
        steps.remove("flip")  # resampling does it at no cost
        mirror = draws["flip"][:, 0] < recipe.flip

    out = torch.empty((len(rows), size, size, 3), device=pixels.device)
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        x = pixels[part].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if not pixels.is_floating_point():
            x.div_(255)
        for step in steps:
            if step == "crop":
                x = resample(x, box[part], size, mirror[part])
            elif step == "jitter" and (jitter := recipe.jitter):
                own = draws[step][part]
                jitter_(x, active(jitter), factors(jitter, own[:, 1:5]), own[:, 5:], before_hue[part])
            else:
                x = _operate(step, x, draws[step][part], recipe)
        torch.index_select(x.permute(0, 2, 3, 1), 0, rows[part].argsort(), out=out[part])  # each to its own place
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


def _operate(name: str, x: Tensor, draws: Tensor, recipe: ViewRecipe) -> Tensor:
    """One operation on a chunk of n samples, which may work in its memory; draws: n x DRAWS[name]."""
    first, second = draws[:, 0], draws[:, -1]
    if name == "pad":
        return shift(x, recipe.pad, draws)
    if name == "flip":
        return _some(x, first < recipe.flip, lambda part, rows: part.flip(3))
    if name == "rotate" and (by := recipe.rotate):
        angle = between((-by.degrees, by.degrees), second)
        return _some(x, first < by.p, lambda part, rows: rotate(part, angle[rows]))
    if name == "gray":
        return _some(x, first < recipe.gray, lambda part, rows: gray(part))
    if name == "color_drop" and (drop := recipe.color_drop):

        def dropped(part: Tensor, rows: Tensor) -> Tensor:
            kept, high, low = (draws[rows, 1:] * torch.tensor([3, 2**24, 2**24], device=x.device)).to(torch.int64).T
            if drop.fill == "copies":
                return drop_colors(part, kept, None)
            # Two draws of 24 bits name the sample's own stream of noise.
            noise = normal(Key(0, 0), "color_drop", (high << 24) + low, part[0].numel())
            return drop_colors(part, kept, noise.reshape(part.shape))

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
