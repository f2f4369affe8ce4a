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
    AnnotatedDataset,
    Dataset,
    Dense,
    DenseSettings,
    Embed,
    Experiment,
    Finetune,
    FinetuneSettings,
    Frozen,
    MethodSettings,
    Name,
    Pretrain,
    Probe,
    Runtime,
    Sweep,
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
    finetune: Finetune
    dense: Dense = Dense(datasets={}, experiments=[], protocols=[])
    evaluate: dict[Name, Mapping]
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if self.dataset not in self.datasets:
            raise ValueError(
                f"dataset '{self.dataset}' is not under datasets; {did_you_mean(self.dataset, self.datasets)}"
            )
        lists: dict[str, list[Any]] = {
            "seeds": self.seeds,
            "probe.protocols": self.probe.protocols,
            "finetune.protocols": self.finetune.protocols,
            "finetune.experiments": self.finetune.experiments,
            "dense.protocols": self.dense.protocols,
            "dense.experiments": self.dense.experiments,
        }
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names something twice: {values}")
        for family, names in (("finetune", self.finetune.experiments), ("dense", self.dense.experiments)):
            for name in names:
                if name not in self.experiments:
                    raise ValueError(
                        f"{family}.experiments: '{name}' is not under experiments; "
                        f"{did_you_mean(name, self.experiments)}"
                    )
        if twice := sorted(self.datasets.keys() & self.dense.datasets.keys()):
            raise ValueError(f"'{twice[0]}' is under datasets and under dense.datasets; rename one of them")
        return self

    def dataset_settings(self, name: str) -> Dataset:
        """The settings of `datasets.NAME`."""
        if name not in self.datasets:
            raise UserError(f"datasets: there is no '{name}'; {did_you_mean(name, self.datasets)}")
        return self.datasets[name]

    def annotated_settings(self, name: str) -> AnnotatedDataset:
        """The settings of `dense.datasets.NAME`."""
        if name not in self.dense.datasets:
            raise UserError(f"dense.datasets: there is no '{name}'; {did_you_mean(name, self.dense.datasets)}")
        return self.dense.datasets[name]

    def protocol(self, name: str, family: str = "probe") -> Frozen:
        """The settings of one protocol of a family, from `evaluate.NAME`.

        Raises:
            UserError: there is no such protocol, it is of another family, or its settings cannot be.
        """
        key = f"{family}.protocols"
        PROTOCOLS.check(name, key)
        if (own := PROTOCOLS.entries[name].family) != family:
            known = ", ".join(name for name, entry in PROTOCOLS.entries.items() if entry.family == family)
            raise UserError(f"{key}: '{name}' is a {own} protocol, list it under {own}.protocols; known here: {known}")
        return protocol(name, self.evaluate)

    def targets(self, protocol: str) -> list[str]:
        """The data sets that a protocol of the family `finetune` looks at.

        Raises:
            UserError: one is not there, or there is none but the one that the encoders are pretrained on.
        """
        settings = self.protocol(protocol, "finetune")
        assert isinstance(settings, FinetuneSettings)
        for name in settings.datasets or ():
            if name not in self.datasets:
                known = did_you_mean(name, self.datasets)
                raise UserError(f"params.yaml: evaluate.{protocol}.datasets: there is no '{name}'; {known}")
        found = settings.datasets or [name for name in self.datasets if (name != self.dataset) == settings.others]
        if not found:
            raise UserError(f"params.yaml: finetune.protocols: {protocol} looks at data sets other than the one "
                            f"pretrained on, '{self.dataset}'; add one under datasets")  # fmt: skip
        return found

    def scenes(self, protocol: str) -> list[str]:
        """The annotated data sets that a protocol of the family `dense` looks at.

        Raises:
            UserError: one is not there, or there is none.
        """
        settings = self.protocol(protocol, "dense")
        assert isinstance(settings, DenseSettings)
        for name in settings.datasets or ():
            if name not in self.dense.datasets:
                key, known = f"evaluate.{protocol}.datasets", did_you_mean(name, self.dense.datasets)
                raise UserError(f"params.yaml: {key}: there is no '{name}' under dense.datasets; {known}")
        if not self.dense.datasets:
            raise UserError(f"params.yaml: dense.protocols: {protocol} has nothing to look at; add a data set under "
                            "dense.datasets")  # fmt: skip
        return settings.datasets or list(self.dense.datasets)

    def sweep(self, name: str) -> Sweep | None:
        """How `experiments.NAME` is tuned, or None where it is not."""
        entry = self._entry(name).get("sweep")
        return None if entry is None else validate(Sweep, entry, f"experiments.{name}.sweep")

    def _entry(self, name: str) -> Mapping:
        if name not in self.experiments:
            raise UserError(f"experiments.{name}: there is no such experiment; {did_you_mean(name, self.experiments)}")
        return self.experiments[name]

    def experiment(self, name: str, changes: Mapping | None = None) -> Experiment:
        """Resolve `experiments.NAME` to the total description of its training.

        Args:
            name: the experiment.
            changes: to its entry, e.g. a trial's {"temperature": 0.1, "head": {"width": 64}}.

        Raises:
            UserError: the entry, or what it says together with the shared sections, is not possible.
        """
        key = f"experiments.{name}"
        entry = merge(self._entry(name), changes or {})
        entry.pop("sweep", None)
        method = entry.pop("method", None)
        if not isinstance(method, str):
            raise UserError(f"{key}.method: every experiment names its method, e.g. {{method: simclr}}")
        METHODS.check(method, f"{key}.method")
        own = {section: entry.pop(section, {}) for section in SHARED}
        for section, value in own.items():
            if not isinstance(value, dict):
                raise UserError(f"{key}.{section}: expected settings, got {value!r}")
        model: type[MethodSettings] = METHODS.settings(method)
        settings = validate(model, entry, key, also=("method", "sweep", *SHARED))
        encoder, modules = self._encoder(own["encoder"], key, model.encoder_pair)
        changes = merge(self.augment, own["augment"])
        pretrain = validate(Pretrain, merge(self.pretrain.model_dump(), own["pretrain"]), f"{key}.pretrain")
        try:
            pretrain.part(self.runtime.processes if model.trains else 1)
        except ValueError as error:
            raise UserError(f"params.yaml: {key}.pretrain: {error}") from None
        files = closure(METHODS.file(method)).union(*map(closure, modules))
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

    def _encoder(self, own: Mapping, key: str, pair: bool) -> tuple[Mapping, set[Path]]:
        shared = self.encoder if own.get("name", self.encoder.get("name")) == self.encoder.get("name") else {}
        where = f"{key}.encoder" if own else "encoder"
        resolved, files = encoder(merge(shared, own), where)
        if pair and resolved["name"] != "pair":
            # As many channels in all as the other experiments' encoder, so that they can be compared.
            half = {"width": max(1, resolved["width"] // 2)} if "width" in resolved else {}
            resolved, files = encoder({"name": "pair", "of": {**resolved, **half}}, where)
        return resolved, files


def encoder(entry: Mapping, where: str) -> tuple[Mapping, set[Path]]:
    """An encoder's entry with all its values, and the files of its code; a pair's `of` is an entry itself."""
    entry = dict(entry)
    name = entry.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"{where}.name: name an encoder, e.g. conv4")
    ENCODERS.check(name, f"{where}.name")
    settings = validate(ENCODERS.settings(name), entry, where, also=("name",)).model_dump(mode="json")
    files = {ENCODERS.file(name)}
    if name == "pair":
        settings["of"], of = encoder(settings["of"], f"{where}.of")
        files |= of
    return {"name": name, **settings}, files


def protocol(name: str, evaluate: Mapping) -> Frozen:
    """The settings of one protocol, from what stands under `evaluate`."""
    model: type[Frozen] = PROTOCOLS.settings(name)
    return validate(model, evaluate.get(name, {}), f"evaluate.{name}")


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


def validate(model: type[Model], data: Any, key: str, also: tuple[str, ...] = (), file: str = "params.yaml") -> Model:
    """`data` as a `model`, or a UserError of one line that names the key (and the nearest known one for a typo).

    Args:
        model: the pydantic model.
        data: what YAML gave.
        key: where `data` stands in the file, e.g. "evaluate.knn"; empty for the whole file.
        also: keys that are known at this place beside the model's own, for the hint.
        file: the name of the file that `data` comes from.
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
            raise UserError(f"{file}: unknown key '{where}'; {did_you_mean(place[-1], known)}") from None
        reason = error["msg"].removeprefix("Value error, ")
        got = "" if isinstance(error["input"], dict) or error["type"] == "value_error" else f", got {error['input']!r}"
        raise UserError(f"{file}: {where or 'params'}: {reason}{got}") from None


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


def load(file: Path) -> Any:
    """A YAML file's content, unchecked; see `parse`.

    Raises:
        UserError: it is missing, or cannot be read.
    """
    try:
        return parse(file.read_text(encoding="utf-8"), file.name)
    except FileNotFoundError:
        raise UserError(f"there is no {file.name} in {file.parent}: run miyagi from the project's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None


def parse(text: str, name: str) -> Any:
    """YAML as `params.yaml` is read: by a safe loader to which 1e-3 is a number.

    Raises:
        UserError: `text`, of the file called `name`, is not YAML.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{name}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None


def read_section(file: Path, section: str, model: type[Model]) -> Model:
    """One section alone, for a stage that depends on no other."""
    data = load(file)
    return validate(model, data.get(section, {}) if isinstance(data, dict) else data, section)


def read(file: Path) -> Params:
    """Read and check the whole of `params.yaml`, every experiment and protocol included.

    Raises:
        UserError: the file is missing, is not YAML, or says something that cannot be.
    """
    params = validate(Params, load(file), "")
    for key, dataset in params.datasets.items():
        _check_source(dataset.source, f"datasets.{key}.source", "")
    for key, annotated in params.dense.datasets.items():
        _check_source(annotated.source, f"dense.datasets.{key}.source", "annotated")
        if annotated.of is not None:
            _check_source(annotated.of, f"dense.datasets.{key}.of", "")
    for key in params.evaluate:
        PROTOCOLS.check(key, "evaluate")
        protocol(key, params.evaluate)
    for name in params.probe.protocols:
        params.protocol(name)
        if (needs := PROTOCOLS.entries[name].needs) and not getattr(params.embed, needs):
            raise UserError(f"params.yaml: embed.{needs}: is empty, but probe.protocols lists {name}, which needs it")
        if name not in params.evaluate:
            raise UserError(f"params.yaml: evaluate.{name}: missing; `{name}: {{}}` takes the protocol's own settings")
    for name in params.finetune.protocols:
        params.targets(name)
        if how := getattr(params.protocol(name, "finetune"), "optimization", None):
            views(how.recipe, how.augment, f"evaluate.{name}.optimization")
        if name not in params.evaluate:
            raise UserError(f"params.yaml: evaluate.{name}: missing; `{name}: {{}}` takes the protocol's own settings")
    for name in params.dense.protocols:
        params.scenes(name)
        if name not in params.evaluate:
            raise UserError(f"params.yaml: evaluate.{name}: missing; `{name}: {{}}` takes the protocol's own settings")
    for name in params.experiments:
        params.experiment(name)
        params.sweep(name)
    return params


def _check_source(name: str, key: str, family: str) -> None:
    """Whether a source exists and gives what stands at this place."""
    SOURCES.check(name, key)
    if SOURCES.entries[name].family != family:
        places = "dense.datasets", "datasets"
        raise UserError(f"params.yaml: {key}: {name} belongs under {places[family == 'annotated']}: "
                        f"it gives {'labelled images' if family else 'annotated pictures'}")  # fmt: skip
