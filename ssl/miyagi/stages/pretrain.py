"""pretrain@E-S: experiment.yaml and the train beton -> encoder, head, history."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from miyagi.code import code_digest, declared
from miyagi.data.loader import Loader
from miyagi.data.manifest import data_digest, data_info, read_manifest
from miyagi.data.rng import fold
from miyagi.errors import UserError
from miyagi.files import digest, json_text, write_json, write_text
from miyagi.methods import base as methods
from miyagi.nn.encoders import base as encoders
from miyagi.paths import Paths
from miyagi.settings import Experiment
from miyagi.train import checkpoint
from miyagi.train.loop import Row, Trainer
from miyagi.train.monitor import OnlineMonitor
from miyagi.train.setup import set_up
from miyagi.train.weights import save_module

OUTS = ("encoder.safetensors", "head.safetensors", "history.csv", "run.json")
COLUMNS = ("epoch", "loss", "lr", "knn", "std", "rank")
"""What every history has; a method's own figures follow in alphabetical order."""


def read_experiment(file: Path) -> Experiment:
    """The total description that `sweep@E` wrote."""
    try:
        return Experiment.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")), strict=False)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot read {file}: {reason}; delete it and run `dvc repro`") from error


def identity(name: str, seed: int, paths: Paths) -> dict[str, Any]:
    """What `run.json` holds: all that decides the training, as one fingerprint, and the code's digest."""
    experiment = read_experiment(paths.experiment(name))
    code = code_digest(declared(paths.dag, "pretrain"))
    data = data_digest(read_manifest(paths.manifest(experiment.dataset)))
    device = "cuda" if experiment.runtime.device != "cpu" and torch.cuda.is_available() else "cpu"
    decides = [
        experiment.model_dump(mode="json"),
        seed,
        data,
        code,
        torch.__version__,
        experiment.runtime.threads,
        experiment.runtime.precision,
        device,
    ]
    return {"stage": "pretrain", "fingerprint": digest(decides), "code": code, "data": data}


def run(
    name: str, seed: int, paths: Paths, on_epoch: Callable[[Row, float], None] = lambda row, rate: None
) -> dict[str, float]:
    """Train (or, for the random floor, only initialise) one experiment with one seed and write its outs.

    Args:
        name: the experiment.
        seed: of initialisation, order, augmentation and the method.
        paths: the project's files.
        on_epoch: called with each epoch's row and its samples/s.

    Returns:
        The last epoch's figures.
    """
    experiment = read_experiment(paths.experiment(name))
    about = identity(name, seed, paths)
    folder = paths.run(name, seed)
    with checkpoint.scratch(paths.scratch / "train", about["fingerprint"]) as scratch:
        if finished(folder, about):  # by a process that was still training when DVC started this one
            return {}
        device = set_up(experiment.runtime)
        manifest = read_manifest(paths.manifest(experiment.dataset))
        info = data_info(manifest)
        torch.manual_seed(fold(seed, "init") >> 1)
        encoder = encoders.build(experiment.encoder, info.mean, info.std)
        encoders.check_size(encoder, experiment.encoder["name"], info.size, f"datasets.{experiment.dataset}.size")
        method = methods.build(experiment.method, experiment.settings, encoder, info).to(device)
        history: list[Row] = []
        if experiment.pretrain is not None:
            settings, look = experiment.pretrain, experiment.pretrain.monitor.images
            train = paths.beton(experiment.dataset, "train")
            trainer = Trainer(
                method,
                Loader(train, settings.batch_size, seed=fold(seed, "order"), drop_last=True),
                experiment.views,
                settings,
                size=info.size,
                seed=seed,
                precision=experiment.runtime.precision,
            )
            val = paths.beton(experiment.dataset, "val")
            monitor = OnlineMonitor(settings.monitor, Loader(train, 500, limit=look), Loader(val, 500, limit=look))
            history = trainer.fit(scratch, monitor if settings.monitor.every else None, on_epoch)
        kept = {"experiment": experiment.model_dump(mode="json"), "classes": info.classes, "size": info.size}
        save_module(method.encoder, folder / "encoder.safetensors", kept)
        save_module(method.head, folder / "head.safetensors", kept)
        write_text(folder / "history.csv", as_csv(history))
        write_json(folder / "run.json", about)
    return history[-1] if history else {}


def finished(folder: Path, about: dict[str, Any]) -> bool:
    """Whether all outs of this very training are there; `run.json` is written last. DVC deletes outs before a run."""
    whole = all((folder / name).is_file() for name in OUTS)
    return whole and (folder / "run.json").read_text(encoding="utf-8") == json_text(about)


def as_csv(history: list[Row]) -> str:
    """The history as CSV text; a figure that was not measured in an epoch is empty."""
    own = sorted({column for row in history for column in row} - set(COLUMNS))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *own], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
