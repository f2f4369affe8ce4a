"""A view recipe as torchvision's own transforms, one image at a time: what the batched augmentation is compared with."""

import torch
from torchvision.transforms import v2

from miyagi.data.rng import fold
from miyagi.settings import ViewRecipe


def transform(recipe: ViewRecipe, size: int) -> v2.Compose:
    """3 x H x W uint8 -> 3 x size x size float in [0, 1]. Torchvision has neither cutout nor colour dropping."""
    assert not (recipe.color_drop or recipe.cutout)
    steps: list[torch.nn.Module] = [v2.ToDtype(torch.float32, scale=True)]
    if crop := recipe.crop:
        steps.append(v2.RandomResizedCrop(size, crop.scale, crop.ratio, antialias=True))
    if recipe.pad:
        steps.append(v2.RandomCrop(size, recipe.pad, padding_mode="reflect"))
    steps.append(v2.RandomHorizontalFlip(recipe.flip))
    if turn := recipe.rotate:
        # Without `fill`: with it, torchvision blends the corners' soft edges with black a second time.
        rotation = v2.RandomRotation(turn.degrees, v2.InterpolationMode.BILINEAR, fill=None)
        steps.append(v2.RandomApply([rotation], turn.p))
    if jitter := recipe.jitter:
        strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        steps.append(v2.RandomApply([v2.ColorJitter(*strengths)], jitter.p))
    steps.append(v2.RandomGrayscale(recipe.gray))
    if blur := recipe.blur:
        kernel = 2 * max(1, round(0.1 * size) // 2) + 1
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, blur.sigma)], blur.p))
    steps.append(v2.RandomSolarize(recipe.solarize_threshold, recipe.solarize))
    return v2.Compose(steps)


def augment(images, index, key, view, recipe, size, *, cropped=False):
    """What miyagi.data.augment.augment does, from torch's own generator, which is seeded for each image."""
    assert not cropped
    each, views = transform(recipe, size), []
    with torch.random.fork_rng():
        for image, i in zip(images, index.tolist(), strict=True):
            torch.manual_seed(fold(*key, view, i) >> 1)
            views.append(each(image))
    return torch.stack(views).contiguous(memory_format=torch.channels_last)
