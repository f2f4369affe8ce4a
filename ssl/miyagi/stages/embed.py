"""embed@E-S-D: an encoder and a data set's betons -> the bank of frozen features of every tap and of the head."""

import numpy as np
import torch
from safetensors.numpy import save_file

from miyagi.data.loader import Loader
from miyagi.data.manifest import data_digest, data_info, read_manifest
from miyagi.files import canonical, replacing
from miyagi.methods import base as methods
from miyagi.methods.base import Method
from miyagi.nn.encoders import base as encoders
from miyagi.paths import SPLITS, Paths
from miyagi.settings import Embed, Experiment, MethodSettings
from miyagi.train.setup import set_up
from miyagi.train.weights import about, load_module


def run(name: str, seed: int, dataset: str, settings: Embed, paths: Paths) -> dict[str, float]:
    """Write the bank: "<split>.<layer>" (N x D float32) and "<split>.labels" (N int64) for each split.

    Layers are the encoder's taps, `encoder` (what `forward` gives) and `head` (the head's output).

    Raises:
        UserError: the images are smaller than the encoder can take.
    """
    folder = paths.run(name, seed)
    kept = about(folder / "encoder.safetensors")
    experiment = Experiment.model_validate(kept["experiment"], strict=False)
    device = set_up(experiment.runtime)
    manifest = read_manifest(paths.manifest(dataset))
    trained_on = data_info(read_manifest(paths.manifest(experiment.dataset)))
    encoder = encoders.build(experiment.encoder, trained_on.mean, trained_on.std)
    encoders.check_size(encoder, experiment.encoder["name"], manifest["size"], f"datasets.{dataset}.size")
    method = methods.build(experiment.method, experiment.settings, encoder, trained_on)
    load_module(method.encoder, folder / "encoder.safetensors")
    load_module(method.head, folder / "head.safetensors")
    method.to(device).eval()
    bank: dict[str, np.ndarray] = {}
    for split in SPLITS:
        loader = Loader(paths.beton(dataset, split), settings.batch_size)
        bank |= {f"{split}.{layer}": values for layer, values in embed(method, loader, settings, device).items()}
    stamp = {"dataset": dataset, "data": data_digest(manifest), "threads": experiment.runtime.threads}
    with replacing(paths.bank(name, seed, dataset)) as temporary:
        save_file(bank, str(temporary), metadata={"miyagi": canonical(stamp)})
    return {f"dimensions.{layer}": bank[f"train.{layer}"].shape[1] for layer in ("encoder", "head")}


@torch.inference_mode()
def embed(
    method: Method[MethodSettings], loader: Loader, settings: Embed, device: torch.device
) -> dict[str, np.ndarray]:
    """Every layer of every image of one split, unaugmented, in the file's order."""
    bank: dict[str, np.ndarray] = {"labels": np.empty(loader.images, np.int64)}
    start = 0
    for raw in loader():
        stop = start + len(raw.index)
        x = (raw.image.to(device) / 255).contiguous(memory_format=torch.channels_last)
        layers = method.encoder.taps(x, settings.tap_dimensions)
        layers["head"] = method.head(layers["encoder"])
        for layer, values in layers.items():
            if layer not in bank:
                bank[layer] = np.empty((loader.images, values.shape[1]), np.float32)
            bank[layer][start:stop] = values.float().cpu().numpy()
        bank["labels"][start:stop] = raw.label.numpy()
        start = stop
    return bank
