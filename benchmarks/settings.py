"""`benchmarks/params.yaml` as frozen models."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from miyagi.errors import UserError
from miyagi.params import validate
from miyagi.settings import Fraction, Frozen, Name

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("params.yaml")

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class DataPath(Frozen):
    """Part (a)."""

    recipes: list[Name] = Field(min_length=1)
    seconds: float = Field(ge=0)


class Pretraining(Frozen):
    """Parts (b) and (c): what both sides train with, and what of `runtime` ours runs under."""

    temperature: Positive
    lr: Positive
    momentum: Fraction
    weight_decay: float = Field(ge=0)
    epochs: Count
    turns: Count
    runtime: dict[str, Any]

    def optimisation(self) -> dict[str, float]:
        """What lightly's training takes of it."""
        found: dict[str, float] = self.model_dump(include={"temperature", "lr", "momentum", "weight_decay"})
        return found


class Lightly(Frozen):
    """The settings of its DataLoader that are tried."""

    workers: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    threads: list[Count] = Field(min_length=1)
    trial_images: Count


class TimeToAccuracy(Frozen):
    """Part (d)."""

    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    k: Count
    temperature: Positive
    epochs: Count
    ours: dict[Name, dict[str, Any]]


class Stages(Frozen):
    """Part (e)."""

    repeats: Count
    experiments: list[Name] = Field(min_length=1)
    targets: list[str]
    imports: list[str]


class Growth(Frozen):
    """Part (f)."""

    images: list[Count] = Field(min_length=2)
    batches: list[Count] = Field(min_length=2)
    repeats: Count
    epochs: Count


class Tiny(Frozen):
    """What of (g) shows the cost of a stage."""

    experiments: list[Name] = Field(min_length=1)
    targets: list[str]
    repeats: Count


class Orchestration(Frozen):
    """Part (g)."""

    rounds: Count
    experiments: list[Name] = Field(min_length=1)
    changes: dict[str, Any]
    targets: list[str]
    tiny: Tiny


class Settings(Frozen):
    """The whole file."""

    images: Count
    test_images: Count
    rate_images: Count
    size: int = Field(ge=16)
    width: Count
    batch: int = Field(ge=2)
    threads: Count
    repeats: Count
    data_path: DataPath
    pretraining: Pretraining
    lightly: Lightly
    time_to_accuracy: TimeToAccuracy
    stages: Stages
    growth: Growth
    orchestration: Orchestration

    def entry(self, recipe: str) -> dict[str, Any]:
        """What ours trains with where rates are measured, as an entry under `experiments:` of params.yaml."""
        chosen = self.pretraining
        return {
            "method": "simclr",
            "recipe": recipe,
            "temperature": chosen.temperature,
            "runtime": chosen.runtime,
            "pretrain": {
                "optimizer": "sgd",
                "lr": chosen.lr,
                "momentum": chosen.momentum,
                "weight_decay": chosen.weight_decay,
                "warmup_epochs": 0.0,
                "batch_size": self.batch,
                "epochs": 1 + chosen.epochs,
            },
        }


def read(file: Path = FILE) -> Settings:
    """The settings in `file`.

    Raises:
        UserError: it is missing, not YAML, or says something that cannot be.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    return validate(Settings, data, "")
