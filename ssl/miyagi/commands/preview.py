"""`miyagi preview`: the views that an experiment's network will be asked about, before hours are spent on them."""

from pathlib import Path

import numpy as np
import torch

from miyagi.data.batch import DataInfo
from miyagi.data.betons import square
from miyagi.data.decode import read_images
from miyagi.data.loader import Raw
from miyagi.data.pictures import Listing, examined
from miyagi.data.rng import Key, fold
from miyagi.data.sources.imagefolder import image_files
from miyagi.errors import UserError
from miyagi.methods import base as methods
from miyagi.nn.encoders import base as encoders
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.registry import SOURCES
from miyagi.report.sheet import write_sheet
from miyagi.settings import Dataset, Experiment
from miyagi.train.asked import DRAWS, IMAGES, shown
from miyagi.train.loop import augmented, wanted


def run(params: Params, paths: Paths, name: str | None, data: Path | None, out: Path | None) -> Path:
    """Draw the first images, and what the experiment's method makes of them in two draws, as one PNG.

    The views are made by the training's own code. The network is not trained, so where a method draws its answers,
    they are guesses. No beton is needed: pictures come from `data`, else from the betons where there are any, else
    from the data set's source.

    Args:
        params, paths: the project.
        name: the experiment; None: the first that trains.
        data: a folder of images, at any depth.
        out: None: `reports/preview_NAME.png`.

    Returns:
        The picture.

    Raises:
        UserError: the experiment does not train, or there is no image.
    """
    name, experiment = _experiment(params, name)
    dataset = params.dataset_settings(experiment.dataset)
    images = _folder(data, dataset) if data else _dataset(experiment.dataset, dataset, paths)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    color = bool((images != images[..., :1]).any())
    info = DataInfo(len(images), 2, dataset.size, (0.5,) * 3, (0.25,) * 3, color)
    torch.manual_seed(fold(params.seeds[0], "init") >> 1)
    encoder = encoders.build(experiment.encoder, info.mean, info.std)
    method = methods.build(experiment.method, experiment.settings, encoder, info)
    index = torch.arange(len(images))
    raw, views = Raw(x, torch.zeros_like(index), index), wanted(method.views, experiment.views, dataset.size)
    batches = (augmented(raw, Key(params.seeds[0], draw), views) for draw in range(DRAWS))
    out = out or paths.reports / f"preview_{name}.png"
    write_sheet(shown(method, x, batches), out)
    return out


def _experiment(params: Params, name: str | None) -> tuple[str, Experiment]:
    """The experiment called `name`, or the first that trains."""
    resolved = {key: params.experiment(key) for key in ([name] if name else params.experiments)}
    trains = {key: experiment for key, experiment in resolved.items() if experiment.pretrain is not None}
    if not trains:
        raise UserError(f"experiments.{name}: trains nothing, so its network is asked nothing" if name else
                        "experiments: none of them trains, so there is nothing to see")  # fmt: skip
    return next(iter(trains.items()))


def _folder(folder: Path, dataset: Dataset) -> np.ndarray:
    """The first readable images of a folder, N x S x S x 3 uint8."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    listing = Listing()
    found = [(path, None) for path in image_files(folder, listing)][: 2 * IMAGES]
    kept, read = examined(folder, found, listing)
    if not kept:
        raise UserError(f"{folder} has no image that can be read{listing.first}")
    side = dataset.shorter_side or dataset.size
    return np.stack([square(read(i), side) for i in range(min(IMAGES, len(kept)))])


def _dataset(name: str, dataset: Dataset, paths: Paths) -> np.ndarray:
    """The first training images as `prepare` stored them, or as its source has them."""
    if dataset.shorter_side is None and paths.manifest(name).is_file():
        return read_images(paths.beton(name, "train"), range(IMAGES))[0]
    images = SOURCES.load(dataset.source).load(dataset, paths).train
    some = np.linspace(0, len(images.labels) - 1, IMAGES).astype(int)  # a folder's first images are all of one class
    return np.stack([square(images.read(int(i)), dataset.shorter_side or dataset.size) for i in some])
