"""What a method sees: a few training images beside their augmented views, made by the training's own code."""

from collections.abc import Sequence

import numpy as np
import yaml

from miyagi.paths import Paths
from miyagi.report.html import Previews
from miyagi.settings import Experiment

IMAGES, DRAWS = 6, 4


def previews(paths: Paths, experiments: Sequence[str]) -> Previews:
    """Experiment -> a row an image: the stored image, then draws of each of the recipe's views (uint8 H x W x 3).

    An experiment that trains nothing has no views and is left out.
    """
    import torch

    from miyagi.data.augment import augment
    from miyagi.data.betons import Beton, read_images
    from miyagi.data.rng import Key

    found: dict[str, list[list[np.ndarray]]] = {}
    for name in experiments:
        text = paths.experiment(name).read_text(encoding="utf-8")
        experiment = Experiment.model_validate(yaml.safe_load(text), strict=False)
        if not experiment.views:
            continue
        file = paths.beton(experiment.dataset, "train")
        images, _ = read_images(file, range(min(IMAGES, len(Beton(file)))))
        batch, index = torch.from_numpy(images).permute(0, 3, 1, 2), torch.arange(len(images))
        drawn = [
            augment(batch, index, Key(0, draw), f"preview{view}", recipe, images.shape[1])
            for draw in range(DRAWS)
            for view, recipe in enumerate(experiment.views)
        ]
        shown = [(view * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy() for view in drawn]
        found[name] = [[image, *(view[i] for view in shown)] for i, image in enumerate(images)]
    return found
