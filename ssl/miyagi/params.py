"""`params.yaml` -> frozen models, and an experiment's entry -> the total description of its training.

The shared sections (`encoder`, `augment`, `pretrain`, `runtime`, `dataset`) are defaults; an entry under
`experiments:` states what differs from them, beside its method's own settings. There is no other mechanism.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from miyagi.code import PACKAGE, closure, code_digest
from miyagi.errors import UserError, did_you_mean
from miyagi.recipes import RECIPES
from miyagi.registry import ENCODERS, METHODS, PROTOCOLS, SOURCES
from miyagi.settings import (
    Dataset,
    Embed,
    Experiment,
    Frozen,
    MethodSettings,
    Name,
    Pretrain,
    Probe,
    Runtime,
    Tracking,
    ViewRecipe,
)

Model = TypeVar("Model", bound=BaseModel)
Mapping = dict[str, Any]
SHARED = ("encoder", "augment", "pretrain")
"""The sections that an experiment's entry may restate in part; its other keys are its method's settings."""
CODE = tuple(PACKAGE / name for name in ("data", "losses", "methods", "metrics", "nn"))
"""Where code that can change a trained weight lies, apart from the training loop that every experiment shares."""


class Params(Frozen):
    """The whole of `params.yaml`. What `dvc.yaml` tracks must be there, if only as `{}`."""

    runtime: Runtime
    dataset: Name = Field(description="which of `datasets` the encoders are pretrained on")
    datasets: dict[Name, Dataset] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    encoder: Mapping
    augment: Mapping
    pretrain: Pretrain
    experiments: dict[Name, Mapping] = Field(min_length=1)
    embed: Embed
    probe: Probe
    evaluate: dict[Name, Mapping]
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if self.dataset not in self.datasets:
            raise ValueError(
                f"dataset '{self.dataset}' is not under datasets; {did_you_mean(self.dataset, self.datasets)}"
            )
        for key, values in (("seeds", self.seeds), ("probe.protocols", self.probe.protocols)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names something twice: {values}")
        return self

    def dataset_settings(self, name: str) -> Dataset:
        """The settings of `datasets.NAME`."""
        if name not in self.datasets:
            raise UserError(f"datasets: there is no '{name}'; {did_you_mean(name, self.datasets)}")
        return self.datasets[name]

    def protocol(self, name: str) -> Frozen:
        """The settings of one protocol, from `evaluate.NAME`."""
        PROTOCOLS.check(name, "probe.protocols")
        model: type[Frozen] = PROTOCOLS.settings(name)
        return validate(model, self.evaluate.get(name, {}), f"evaluate.{name}")

    def experiment(self, name: str) -> Experiment:
        """Resolve `experiments.NAME` to the total description of its training.

        Raises:
            UserError: the entry, or what it says together with the shared sections, is not possible.
        """
        key = f"experiments.{name}"
        if name not in self.experiments:
            raise UserError(f"{key}: there is no such experiment; {did_you_mean(name, self.experiments)}")
        entry = dict(self.experiments[name])
        method = entry.pop("method", None)
        if not isinstance(method, str):
            raise UserError(f"{key}.method: every experiment names its method, e.g. {{method: simclr}}")
        METHODS.check(method, f"{key}.method")
        own = {section: entry.pop(section, {}) for section in SHARED}
        for section, value in own.items():
            if not isinstance(value, dict):
                raise UserError(f"{key}.{section}: expected settings, got {value!r}")
        model: type[MethodSettings] = METHODS.settings(method)
        settings = validate(model, entry, key, also=("method", *SHARED))
        encoder, module = self._encoder(own["encoder"], key)
        changes = merge(self.augment, own["augment"])
        pretrain = validate(Pretrain, merge(self.pretrain.model_dump(), own["pretrain"]), f"{key}.pretrain")
        files = closure(METHODS.file(method)) | closure(module)
        return Experiment(
            method=method,
            settings=settings.model_dump(mode="json"),
            encoder=encoder,
            views=views(settings.recipe, changes, key) if model.trains else [],
            pretrain=pretrain if model.trains else None,
            runtime=self.runtime,
            dataset=self.dataset,
            code=code_digest(file for file in files if any(file.is_relative_to(folder) for folder in CODE)),
        )

    def _encoder(self, own: Mapping, key: str) -> tuple[Mapping, Path]:
        shared = self.encoder if own.get("name", self.encoder.get("name")) == self.encoder.get("name") else {}
        entry = merge(shared, own)
        where = f"{key}.encoder" if own else "encoder"
        name = entry.pop("name", None)
        if not isinstance(name, str):
            raise UserError(f"{where}.name: name an encoder, e.g. conv4")
        ENCODERS.check(name, f"{where}.name")
        settings = validate(ENCODERS.settings(name), entry, where, also=("name",))
        return {"name": name, **settings.model_dump(mode="json")}, ENCODERS.file(name)


def views(recipe: str, changes: Mapping, key: str) -> list[ViewRecipe]:
    """A recipe's views with `changes` made to each.

    Args:
        recipe: the recipe's name.
        changes: what `augment:` and the experiment's `augment:` say, e.g. {"jitter": {"p": 0.5}, "blur": None}.
        key: where the experiment stands, for error messages.
    """
    if recipe not in RECIPES:
        raise UserError(f"{key}.recipe: there is no recipe '{recipe}'; {did_you_mean(recipe, RECIPES)}")
    return [
        validate(ViewRecipe, merge(view.model_dump(mode="json"), changes), f"{key}.augment")
        for view in RECIPES[recipe].views
    ]


def merge(base: Mapping, changes: Mapping) -> Mapping:
    """`base` with `changes` made to it, mapping by mapping; any other value is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def validate(model: type[Model], data: Any, key: str, also: tuple[str, ...] = ()) -> Model:
    """`data` as a `model`, or a UserError of one line that names the key (and the nearest known one for a typo).

    Args:
        model: the pydantic model.
        data: what YAML gave.
        key: where `data` stands in the file, e.g. "evaluate.knn"; empty for the whole file.
        also: keys that are known at this place beside the model's own, for the hint.
    """
    try:
        # By way of JSON, because strict models take a JSON list, but not a Python one, for a tuple.
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as failure:
        errors = failure.errors()
        error = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        place = [str(part) for part in error["loc"] if part != "[key]"]
        where = ".".join([key, *place] if key else place)
        if error["type"] == "extra_forbidden":
            known = [*_fields(model, place[:-1]), *(also if len(place) == 1 else ())]
            raise UserError(f"params.yaml: unknown key '{where}'; {did_you_mean(place[-1], known)}") from None
        reason = error["msg"].removeprefix("Value error, ")
        got = "" if isinstance(error["input"], dict) or error["type"] == "value_error" else f", got {error['input']!r}"
        raise UserError(f"params.yaml: {where or 'params'}: {reason}{got}") from None


def _fields(model: Any, place: list[str]) -> list[str]:
    for part in place:
        field = getattr(model, "model_fields", {}).get(part)
        if field is not None:
            model = field.annotation
        arguments = [a for a in getattr(model, "__args__", ()) if hasattr(a, "model_fields")]
        model = arguments[0] if arguments else model
    return list(getattr(model, "model_fields", {}))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-3` as a string; DVC, and people, read a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(f"there is no {file.name} in {file.parent}: run miyagi from the project's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{file.name}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None


def read_section(file: Path, section: str, model: type[Model]) -> Model:
    """One section alone, for a stage that depends on no other."""
    data = _load(file)
    return validate(model, data.get(section, {}) if isinstance(data, dict) else data, section)


def read(file: Path) -> Params:
    """Read and check the whole of `params.yaml`, every experiment and protocol included.

    Raises:
        UserError: the file is missing, is not YAML, or says something that cannot be.
    """
    params = validate(Params, _load(file), "")
    for key, dataset in params.datasets.items():
        SOURCES.check(dataset.source, f"datasets.{key}.source")
    for key in params.evaluate:
        PROTOCOLS.check(key, "evaluate")
    for name in params.probe.protocols:
        params.protocol(name)
        if name not in params.evaluate:
            raise UserError(f"params.yaml: evaluate.{name}: missing; `{name}: {{}}` takes the protocol's own settings")
    for name in params.experiments:
        params.experiment(name)
    return params
