"""The search space of a sweep: dotted paths of an experiment's entry, and the values of a trial.

A trial is the experiment's entry with changes, resolved like any other entry. Nothing here imports torch or Optuna.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from miyagi.errors import UserError, did_you_mean
from miyagi.files import canonical
from miyagi.params import Params
from miyagi.registry import ENCODERS, METHODS
from miyagi.settings import Dimension, Experiment, Pretrain, Sweep, ViewRecipe

if TYPE_CHECKING:
    from optuna import Trial

Values = dict[str, Any]
"""Path -> value, of the dimensions that are active."""


class Space:
    """The dimensions of one experiment's sweep, each after those that it depends on.

    Args:
        name: the experiment.
        params: the whole of params.yaml.
        sweep: its `sweep:` block.

    Raises:
        UserError: a path is unknown, a value is none that the key may have, a condition cannot hold, or the
            experiment's own values, which are trial 0, lie outside.
    """

    def __init__(self, name: str, params: Params, sweep: Sweep) -> None:
        self.name, self.params, self.sweep = name, params, sweep
        self.key = f"params.yaml: experiments.{name}.sweep"
        own = params.experiment(name)
        if own.pretrain is None:
            raise UserError(f"{self.key}: {own.method} does not train, so there is nothing to tune")
        known = [*_known(name, params, own)]
        for path in sweep.space:
            if path not in known:
                raise UserError(f"{self.key}.space: unknown key '{path}'; {did_you_mean(path, known)}")
        self.dimensions = self._ordered()
        self.own = {path: _value(own, path) for path in self.dimensions}
        self.defaults: Values = {}
        self.floats = {path for path, dimension in self.dimensions.items() if self._is_float(path, dimension)}
        for path in self.dimensions:
            self._check(path)
        for path in self.dimensions:
            if self.active(path, self.defaults):
                self.defaults[path] = self._inside(path)
        self.points = [point for point in self._points() if not _same(point, self.defaults)]
        """Of a grid: every combination but trial 0, in order; of another sampler: none."""
        self._resolve("objective", {})

    @property
    def places(self) -> int:
        """How many trials there are: a grid may have fewer than `trials`."""
        return min(self.sweep.trials, 1 + len(self.points)) if self.sweep.sampler == "grid" else self.sweep.trials

    def active(self, path: str, values: Mapping[str, Any]) -> bool:
        """Whether `path` has a value where those before it have `values`."""
        return all(other in values and _same(values[other], value) for other, value in self._when(path))

    def suggest(self, trial: "Trial") -> Values:
        """Draw a trial's values."""
        values: Values = {}
        for path, dimension in self.dimensions.items():
            if not self.active(path, values):
                continue
            if dimension.choices is not None:
                labels = [label(choice) for choice in dimension.choices]
                values[path] = dimension.choices[labels.index(trial.suggest_categorical(path, labels))]
                continue
            low, high = dimension.ends
            if path in self.floats:
                step = None if dimension.step is None else float(dimension.step)
                values[path] = trial.suggest_float(path, float(low), float(high), step=step, log=dimension.log)
            else:
                by = int(dimension.step or 1)
                values[path] = trial.suggest_int(path, int(low), int(high), step=by, log=dimension.log)
        return values

    def final(self, values: Mapping[str, Any]) -> Experiment:
        """What would be trained with `values`, in full length; the experiment itself where they are its own.

        Raises:
            UserError: the values cannot be had together.
        """
        return self.params.experiment(self.name, {} if _same(values, self.defaults) else _nested(values))

    def short(self, values: Mapping[str, Any]) -> Experiment:
        """What a trial trains: `final` for as long and on as much as `objective` says, looked at after each epoch.

        Raises:
            UserError: the values cannot be had together.
        """
        pretrain = self.final(values).pretrain
        assert pretrain is not None
        objective, changes = self.sweep.objective, {} if _same(values, self.defaults) else _nested(values)
        pairs = max(2, pretrain.monitor.pairs) if objective.metric == "alignment_uniformity" else 0
        own = {**changes.get("pretrain", {}), "stop_on_collapse": False}
        images = min(pretrain.monitor.images, objective.train_limit or pretrain.monitor.images)
        own["monitor"] = {**own.get("monitor", {}), "every": 1, "pairs": pairs, "images": images}
        own["epochs"] = objective.epochs or pretrain.epochs
        return self.params.experiment(self.name, {**changes, "pretrain": own})

    def _when(self, path: str) -> list[tuple[str, Any]]:
        return list(self.dimensions[path].when.items() if path in self.dimensions else ())

    def _ordered(self) -> dict[str, Dimension]:
        """The dimensions, each after those in its conditions."""
        space = self.sweep.space
        for path, dimension in space.items():
            for other, value in dimension.when.items():
                where = f"{self.key}.space.{path}.when"
                if other not in space:
                    raise UserError(f"{where}: '{other}' is not in the space; {did_you_mean(other, space)}")
                choices = space[other].choices
                if choices is None:
                    raise UserError(f"{where}: '{other}' is a range; a condition needs one with choices")
                if not any(_same(value, choice) for choice in choices):
                    raise UserError(f"{where}: {value!r} is none of the choices of '{other}'")
        ordered: dict[str, Dimension] = {}
        while len(ordered) < len(space):
            ready = [path for path in space if path not in ordered and space[path].when.keys() <= ordered.keys()]
            if not ready:
                stuck = ", ".join(path for path in space if path not in ordered)
                raise UserError(f"{self.key}.space: the conditions of {stuck} depend on one another")
            ordered |= {path: space[path] for path in ready}
        return ordered

    def _is_float(self, path: str, dimension: Dimension) -> bool:
        if dimension.choices is not None:
            return False
        own = self.own[path]
        if own is None:  # what the key may be shows when the bounds are tried
            return any(isinstance(x, float) for x in (dimension.low, dimension.high, dimension.step))
        if isinstance(own, bool) or not isinstance(own, int | float):
            raise UserError(f"{self.key}.space.{path}: {own!r} is no number, so it needs choices, not low and high")
        return isinstance(own, float)

    def _check(self, path: str) -> None:
        """Try the values that a dimension consists of, or its ends, with what it depends on."""
        dimension = self.dimensions[path]
        found = dimension.choices or [dimension.low, dimension.high]
        if dimension.step is not None and path not in self.floats:
            found = [*found, dimension.step + (dimension.low or 0)]
        for value in found:
            together = {**dict(self._needed(path)), path: value}
            values = {other: together[other] for other in self.dimensions if other in together}
            self._resolve(f"space.{path}", values, value)

    def _needed(self, path: str) -> Iterator[tuple[str, Any]]:
        for other, value in self._when(path):
            yield other, value
            yield from self._needed(other)

    def _resolve(self, where: str, values: Values, value: Any = None) -> None:
        try:
            self.short(values or self.defaults)
        except UserError as error:
            reason = str(error).removeprefix("params.yaml: ")
            shown = "" if value is None else f"{value!r} cannot be: "
            raise UserError(f"{self.key}.{where}: {shown}{reason}") from None

    def _inside(self, path: str) -> Any:
        """The experiment's own value of an active dimension, which the dimension must hold."""
        own, dimension = self.own[path], self.dimensions[path]
        where = f"{self.key}.space.{path}: {own!r}, the experiment's own value and so trial 0's,"
        if dimension.choices is not None:
            for choice in dimension.choices:
                if _same(own, choice):
                    return choice
            raise UserError(f"{where} is none of the choices; add it")
        low, high = dimension.ends
        if own is None or not low <= own <= high:
            raise UserError(f"{where} is not between {low} and {high}; widen the range, or change the experiment")
        steps = (own - low) / dimension.step if dimension.step else 0.0
        if abs(steps - round(steps)) > 1e-6:
            raise UserError(
                f"{where} is no multiple of {dimension.step} above {low}; change low, step or the experiment"
            )
        return own

    def _points(self) -> list[Values]:
        if self.sweep.sampler != "grid":
            return []
        points: list[Values] = [{}]
        for path in self.dimensions:
            points = [
                {**point, path: value} if found else point
                for point in points
                for found in [self.active(path, point)]
                for value in (self._stops(path) if found else [None])
            ]
        return points

    def _stops(self, path: str) -> list[Any]:
        dimension = self.dimensions[path]
        if dimension.choices is not None:
            return dimension.choices
        step = dimension.step or (None if path in self.floats else 1)
        if step is None:
            raise UserError(f"{self.key}.space.{path}: a grid needs step or choices")
        low, high, by = (Decimal(str(x)) for x in (*dimension.ends, step))  # 0.1 + 2 x 0.1 is 0.3 here
        kind = float if path in self.floats else int
        return [kind(low + i * by) for i in range(int((high - low) / by) + 1)]


def label(value: Any) -> Any:
    """What stands for a choice in Optuna's storage, which knows plain values only."""
    return value if value is None or isinstance(value, bool | int | float | str) else canonical(value)


def _same(one: Any, other: Any) -> bool:
    """Equality in which true is not 1, and 1.0 is."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _nested(values: Mapping[str, Any]) -> Values:
    """{"head.width": 64} -> {"head": {"width": 64}}; a whole section first, then what stands inside it."""
    changes: Values = {}
    for path, value in sorted(values.items(), key=lambda item: item[0].count(".")):
        *parts, last = path.split(".")
        place = changes
        for part in parts:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[last] = deepcopy(value)
    return changes


def _value(experiment: Experiment, path: str) -> Any:
    """The value at `path` of a resolved experiment; None where a section on the way is off."""
    described = experiment.model_dump(mode="json")
    sections = {"encoder": described["encoder"], "pretrain": described["pretrain"], "augment": described["views"][0]}
    place: Any = {**described["settings"], **sections}
    for part in path.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def _known(name: str, params: Params, experiment: Experiment) -> Iterator[str]:
    """Every path of the experiment's entry."""
    encoder = {**params.encoder, **params.experiments[name].get("encoder", {})}["name"]
    yield from _keys(METHODS.settings(experiment.method))
    yield "encoder.name"
    yield from _keys(ENCODERS.settings(encoder), "encoder.")
    yield from _keys(Pretrain, "pretrain.")
    yield from _keys(ViewRecipe, "augment.")


def _keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield before + name
        for nested in (field.annotation, *get_args(field.annotation)):
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                yield from _keys(nested, f"{before}{name}.")
