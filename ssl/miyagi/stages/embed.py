"""embed@E-S-D: an encoder and a data set's betons -> the bank of frozen features of every tap and of the head."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from miyagi.data.loader import Loader
from miyagi.data.manifest import data_digest, data_info, read_manifest
from miyagi.data.transforms import TRANSFORMS
from miyagi.files import canonical, replacing
from miyagi.methods import base as methods
from miyagi.methods.base import Method
from miyagi.nn.encoders import base as encoders
from miyagi.paths import SPLITS, Paths
from miyagi.progress import progress
from miyagi.settings import Embed, Experiment, MethodSettings
from miyagi.train.setup import set_up
from miyagi.train.weights import about, load_module

Bank = dict[str, np.ndarray]


def run(name: str, seed: int, dataset: str, settings: Embed, paths: Paths) -> dict[str, float]:
    """Write the bank: "<split>.<layer>" (N x D float32) and "<split>.labels" for each split.

    Layers are the encoder's taps, `encoder` (what `forward` gives) and `head` (the head's output). For each of
    `settings.transforms`, the transformed copies of a split's first images are "<split>~<transform><copy>.<layer>",
    before and after the head. A split's order is random, so its first images are a fair sample. Labels are N int64, or
    N x C uint8 where an image has several.

    Raises:
        UserError: the images are smaller than the encoder can take.
    """
    folder = paths.run(name, seed)
    kept = about(folder / "encoder.safetensors")
    experiment = Experiment.model_validate(kept["experiment"], strict=False)
    device = set_up(experiment.runtime)
    manifest = read_manifest(paths.manifest(dataset))
    pretraining = read_manifest(paths.manifest(experiment.dataset))
    trained_on = data_info(pretraining)
    encoder = encoders.build(experiment.encoder, trained_on.mean, trained_on.std)
    encoders.check_size(encoder, experiment.encoder["name"], manifest["size"], f"datasets.{dataset}.size")
    method = methods.build(experiment.method, experiment.settings, encoder, trained_on)
    load_module(method.encoder, folder / "encoder.safetensors")
    load_module(method.head, folder / "head.safetensors")
    method.to(device).eval()
    bank: Bank = {}
    with torch.inference_mode():
        blank = method.encoder.maps(torch.zeros(1, 3, manifest["size"], manifest["size"], device=device))
    load = partial(Loader, size=manifest["size"], workers=experiment.runtime.threads)
    for split in SPLITS:
        beton = paths.beton(dataset, split)
        loader = load(beton, settings.batch_size)
        bank |= {f"{split}.{layer}": values for layer, values in embed(method, loader, settings, device).items()}
        if several := manifest.get("several_labels"):
            bank[f"{split}.labels"] = multi_hot(several[split], len(manifest["classes"]))
        if settings.transforms:
            few = load(beton, settings.batch_size, limit=settings.transform_images)
            copies = embed_transformed(method, few, settings, device, color=manifest["color"])
            bank |= {f"{split}~{copy}": values for copy, values in copies.items()}
    stamp = {
        "dataset": dataset,
        "data": data_digest(manifest),
        "threads": experiment.runtime.threads,
        "pretrained_on": experiment.dataset,
        "seen": seen(manifest["classes"], pretraining),
        "channels": [[layer, map_.shape[1]] for layer, map_ in blank.items()],  # the rest of a tap is its places
    }
    with replacing(paths.bank(name, seed, dataset)) as temporary:
        save_file(bank, str(temporary), metadata={"miyagi": canonical(stamp)})
    return {f"dimensions.{layer}": bank[f"train.{layer}"].shape[1] for layer in ("encoder", "head")}


def seen(classes: list[str], pretraining: dict[str, Any]) -> list[int]:
    """Positions of the classes that, by their names, pretraining had images of: those of its training split.

    Names rather than data sets, for one folder may stand under two keys, and a disjoint one's test classes were unseen.
    """
    counts = zip(pretraining["classes"], pretraining["counts"]["train"]["per_class"], strict=True)
    known = {name for name, images in counts if images}
    return [position for position, name in enumerate(classes) if name in known]


def multi_hot(several: list[list[int]], classes: int) -> np.ndarray:
    """Each image's labels as a row of N x C uint8."""
    found = np.zeros((len(several), classes), np.uint8)
    for row, labels in zip(found, several, strict=True):
        row[labels] = 1
    return found


@torch.inference_mode()
def embed(method: Method[MethodSettings], loader: Loader, settings: Embed, device: torch.device) -> Bank:
    """Every layer of every image of one split, unaugmented, in the file's order, and the labels."""

    def layers(x: Tensor) -> dict[str, Tensor]:
        found = method.encoder.taps(x, settings.tap_dimensions)
        return {**found, "head": method.head(found["encoder"])}

    bank: Bank = {"labels": np.empty(loader.images, np.int64)}
    for rows, x, _, label in _batches(loader, device):
        bank["labels"][rows] = label.numpy()
        _keep(bank, loader.images, rows, layers(x))
    return bank


@torch.inference_mode()
def embed_transformed(
    method: Method[MethodSettings], loader: Loader, settings: Embed, device: torch.device, *, color: bool
) -> Bank:
    """The layers `encoder` and `head` of transformed copies, "<transform><copy>.<layer>"; copies count from 1.

    Args:
        method, loader, settings, device: see `embed`.
        color: whether the images have colours; where not, their grey copies are themselves, and are left out.
    """
    bank: Bank = {}
    for rows, x, index, _ in _batches(loader, device):
        for name in settings.transforms:
            for number, copy in enumerate(TRANSFORMS[name](x, index), 1) if color or name != "gray" else ():
                z = method.encoder(copy.contiguous(memory_format=torch.channels_last))
                layers = {f"{name}{number}.encoder": z, f"{name}{number}.head": method.head(z)}
                _keep(bank, loader.images, rows, layers)
    return bank


def _batches(loader: Loader, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Where a batch stands in the file's order, its images in [0, 1], their indices and (on the host) their labels."""
    start = 0
    for raw in progress(loader(), len(loader), loader.beton.path.name, "batches"):
        rows = slice(start, start + len(raw.index))
        x = (raw.image.to(device) / 255).contiguous(memory_format=torch.channels_last)
        yield rows, x, raw.index.to(device), raw.label
        start = rows.stop


def _keep(bank: Bank, images: int, rows: slice, layers: dict[str, Tensor]) -> None:
    for layer, values in layers.items():
        if layer not in bank:
            bank[layer] = np.empty((images, values.shape[1]), np.float32)
        bank[layer][rows] = values.float().cpu().numpy()
