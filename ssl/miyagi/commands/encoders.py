"""A trained encoder by its experiment's name, for the commands that take it out of the project."""

from dataclasses import dataclass
from pathlib import Path

from miyagi.errors import UserError, did_you_mean
from miyagi.files import file_digest
from miyagi.nn.encoders import base as encoders
from miyagi.nn.encoders.base import Encoder
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.settings import Experiment
from miyagi.train.weights import about, load_module


@dataclass(frozen=True)
class Trained:
    """An encoder and what it is.

    Attributes:
        name, seed: its experiment and seed.
        experiment: the total description of its training.
        size: side of the images that it was shown, in pixels.
        file: its weights, sha256 `digest`.
        encoder: in eval mode, on the CPU.
    """

    name: str
    seed: int
    experiment: Experiment
    size: int
    file: Path
    digest: str
    encoder: Encoder


def trained(params: Params, paths: Paths, name: str, seed: int | None) -> Trained:
    """The encoder of an experiment and a seed; None: the first seed.

    Raises:
        UserError: there is no such experiment, or it is not trained yet.
    """
    if name not in params.experiments:
        raise UserError(f"experiments: there is no '{name}'; {did_you_mean(name, params.experiments)}")
    seed = params.seeds[0] if seed is None else seed
    file = paths.run(name, seed) / "encoder.safetensors"
    if not file.is_file():
        raise UserError(f"{file.relative_to(paths.root)} is missing; run: dvc repro pretrain@{name}-{seed}")
    kept = about(file)
    experiment = Experiment.model_validate(kept["experiment"], strict=False)
    encoder = encoders.build(experiment.encoder, (0.5,) * 3, (0.5,) * 3)  # its own values are in the file
    load_module(encoder, file)
    return Trained(name, seed, experiment, int(kept["size"]), file, file_digest(file), encoder.eval())
