"""pretrain@E-S: experiment.yaml and the train beton -> encoder, head, history, pictures of what was asked."""

import csv
import io
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from miyagi.code import code_digest, declared
from miyagi.data.manifest import data_digest, data_info, read_manifest
from miyagi.errors import UserError
from miyagi.files import digest, json_text, write_json, write_text
from miyagi.paths import Paths
from miyagi.settings import Experiment
from miyagi.train import asked, checkpoint
from miyagi.train.build import build_method, build_trainer
from miyagi.train.distributed import joined
from miyagi.train.loop import Row
from miyagi.train.setup import on_gpu, set_up
from miyagi.train.weights import save_module

OUTS = ("encoder.safetensors", "head.safetensors", "asked.safetensors", "history.csv", "run.json")
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
    device = "cuda" if on_gpu(experiment.runtime) else "cpu"
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


def processes(experiment: Experiment) -> int:
    """How many processes train an experiment; the random floor needs one."""
    return experiment.runtime.processes if experiment.pretrain is not None else 1


def run(
    name: str, seed: int, paths: Paths, on_epoch: Callable[[Row, float], None] = lambda row, rate: None
) -> dict[str, float]:
    """Train (or, for the random floor, only initialise) one experiment with one seed and write its outs.

    With `runtime.processes` above 1 this is what each of them runs; the first one alone tells and writes.

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
    folder, parent = paths.run(name, seed), paths.scratch / "train"
    history: list[Row] = []
    pictures: dict[str, np.ndarray] = {}
    with ExitStack() as held:
        with joined(processes(experiment), on_gpu(experiment.runtime)) as world:
            if world.rank == 0:
                scratch = held.enter_context(checkpoint.scratch(parent, about["fingerprint"]))
            else:
                scratch = parent / about["fingerprint"]
            # Said by the process that has the lock; another training may have ended while it waited.
            if world.told(world.rank == 0 and finished(folder, about)):
                return {}
            device = set_up(experiment.runtime, world.rank)
            manifest = read_manifest(paths.manifest(experiment.dataset))
            info = data_info(manifest)
            method = build_method(experiment, seed, info, device)
            if experiment.pretrain is not None:
                trainer, monitor = build_trainer(experiment, experiment.pretrain, seed, paths, method, info, world)
                history = trainer.fit(scratch, monitor, on_epoch)
        # The others have parted: from here on nothing waits for them.
        if world.rank == 0:
            if experiment.pretrain is not None:
                pictures = asked.asked(trainer, paths.beton(experiment.dataset, "train"))
            kept = {"experiment": experiment.model_dump(mode="json"), "classes": info.classes, "size": info.size}
            encoder, head = method.downstream()
            save_module(encoder, folder / "encoder.safetensors", kept)
            save_module(head, folder / "head.safetensors", kept)
            asked.save(pictures, paths.asked(name, seed))
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
