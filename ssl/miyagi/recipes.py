"""Augmentation recipes by name: where a method's views start from; `augment:` in params.yaml changes them.

A recipe is a tuple of view recipes that a method's views take in turn, so an asymmetric recipe has two.
"""

from dataclasses import dataclass

from miyagi.settings import Blur, Crop, Jitter, Rotate, ViewRecipe


@dataclass(frozen=True)
class Recipe:
    """A named recipe: one line, its paper, and one entry a view."""

    line: str
    paper: str
    views: tuple[ViewRecipe, ...]


RECIPES = {
    "none": Recipe("the image as it is", "", (ViewRecipe(),)),
    "weak": Recipe(
        "4 pixels of padding, random crop, flip: what supervised training on small images uses",
        "He et al., CVPR 2016",
        (ViewRecipe(pad=4, flip=0.5),),
    ),
    "bownet": Recipe(
        "an image as supervised training takes it, and a perturbed one: crop, flip, colour jitter, grayscale",
        "Gidaris et al., CVPR 2020",
        (ViewRecipe(pad=4, flip=0.5), ViewRecipe(crop=Crop(), flip=0.5, jitter=Jitter(), gray=0.2)),
    ),
    "jigsaw": Recipe("the image as it is, 30 % grey", "Noroozi and Favaro, ECCV 2016", (ViewRecipe(gray=0.3),)),
    "simclr": Recipe(
        "crop, flip, colour jitter at strength 1, grayscale, blur",
        "Chen et al., ICML 2020, appendix A",
        (
            ViewRecipe(
                crop=Crop(),
                flip=0.5,
                jitter=Jitter(p=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
                gray=0.2,
                blur=Blur(p=0.5),
            ),
        ),
    ),
    "simclr_small": Recipe(
        "simclr for small images: colour jitter at strength 0.5, no blur",
        "Chen et al., ICML 2020, appendix B.9 (CIFAR-10)",
        (ViewRecipe(crop=Crop(), flip=0.5, jitter=Jitter(), gray=0.2),),
    ),
    "moco_v1": Recipe(
        "crop, flip, colour jitter, grayscale",
        "He et al., CVPR 2020 (after Wu et al., CVPR 2018)",
        (
            ViewRecipe(
                crop=Crop(scale=(0.2, 1.0)),
                flip=0.5,
                jitter=Jitter(p=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4),
                gray=0.2,
            ),
        ),
    ),
    "moco_v2": Recipe(
        "moco_v1 with gentler jitter and blur",
        "Chen et al., arXiv 2003.04297",
        (
            ViewRecipe(
                crop=Crop(scale=(0.2, 1.0)),
                flip=0.5,
                jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
                gray=0.2,
                blur=Blur(p=0.5),
            ),
        ),
    ),
    "pirl": Recipe(
        "moco_v1, and a larger cut for the view that becomes tiles",
        "Misra and van der Maaten, CVPR 2020",
        tuple(
            ViewRecipe(
                crop=Crop(scale=(lowest, 1.0)),
                flip=0.5,
                jitter=Jitter(p=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4),
                gray=0.2,
            )
            for lowest in (0.2, 0.6)
        ),
    ),
    "cmc": Recipe(
        "crop and flip, colours as they are",
        "Tian et al., ECCV 2020",
        (ViewRecipe(crop=Crop(scale=(0.2, 1.0)), flip=0.5),),
    ),
    "exemplar": Recipe(
        "crop, flip, rotation by up to 20 degrees, colour jitter",
        "Dosovitskiy et al., NeurIPS 2014",
        (
            ViewRecipe(
                crop=Crop(scale=(0.5, 1.0)),
                flip=0.5,
                rotate=Rotate(degrees=20.0),
                jitter=Jitter(p=1.0, brightness=0.4, contrast=0.5, saturation=0.5, hue=0.1),
            ),
        ),
    ),
    "byol": Recipe(
        "two unlike views: one always blurred, the other seldom blurred and sometimes solarized",
        "Grill et al., NeurIPS 2020, appendix B",
        (
            ViewRecipe(
                crop=Crop(),
                flip=0.5,
                jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
                gray=0.2,
                blur=Blur(p=1.0),
            ),
            ViewRecipe(
                crop=Crop(),
                flip=0.5,
                jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
                gray=0.2,
                blur=Blur(p=0.1),
                solarize=0.2,
            ),
        ),
    ),
    "multi_crop": Recipe(
        "large crops, and small ones for the views that ask for the second recipe",
        "Caron et al., NeurIPS 2020 (SwAV)",
        tuple(
            ViewRecipe(
                crop=Crop(scale=scale),
                flip=0.5,
                jitter=Jitter(p=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
                gray=0.2,
                blur=Blur(p=0.5),
            )
            for scale in ((0.14, 1.0), (0.05, 0.14))
        ),
    ),
}
