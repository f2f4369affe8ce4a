"""What a `studies/NAME.yaml` says: frozen models, closed to keys that they do not know. Nothing here imports torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from miyagi.errors import UserError, did_you_mean
from miyagi.params import parse, validate
from miyagi.paths import Paths
from miyagi.settings import Frozen, Name


class Measure(Frozen):
    """Which of a protocol's rows is looked at, always on the test split."""

    protocol: Name
    dataset: Name
    layer: str = "encoder"
    metric: str = "top1"
    condition: dict[str, Any] = Field({}, description="what the row's condition must hold, e.g. {fraction: 0.1}")


class Term(Frozen):
    """One measured setting: an experiment's name alone, or with what differs from the study's measure."""

    experiment: Name
    arm: Name | None = Field(None, description="null: the study's only one, or its first one")
    protocol: Name | None = None
    dataset: Name | None = None
    layer: str | None = None
    metric: str | None = None
    condition: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"experiment": value} if isinstance(value, str) else value

    def measure(self, base: Measure) -> Measure:
        """The study's measure with this term's changes."""
        own = {key: getattr(self, key) for key in Measure.model_fields}
        return base.model_copy(update={key: value for key, value in own.items() if value is not None})


Terms = Annotated[list[Term], Field(min_length=1)]


class Contrast(Frozen):
    """The sum of `plus` less the sum of `minus`: a difference, or with two on each side a difference of differences."""

    plus: Terms
    minus: Terms

    @model_validator(mode="after")
    def _balanced(self) -> "Contrast":
        if len(self.plus) != len(self.minus):
            raise ValueError(f"plus names {len(self.plus)} and minus {len(self.minus)}: their levels would not cancel")
        return self


class Difference(Contrast):
    """Claimed: the contrast is above 0, by `minimum` or more."""

    form: Literal["difference"]
    test: Literal["t"]
    minimum: float = Field(gt=0, description="smallest effect that matters, in points")


class Same(Contrast):
    """Claimed: the contrast lies within -minimum and minimum (two one-sided tests; Schuirmann, 1987)."""

    form: Literal["same"]
    test: Literal["t"]
    minimum: float = Field(gt=0, description="in points")


class Trend(Frozen):
    """Claimed: from the first step to the last, the fitted line rises (or falls) by `minimum` or more."""

    form: Literal["trend"]
    test: Literal["t"]
    over: Name | None = Field(None, description="a grid's name: its experiments, in the order of its values")
    steps: Annotated[list[Contrast], Field(min_length=3)] | None = Field(None, description="or contrasts, in order")
    direction: Literal["up", "down"]
    minimum: float = Field(gt=0, description="in points")

    @model_validator(mode="after")
    def _one_of(self) -> "Trend":
        if (self.over is None) == (self.steps is None):
            raise ValueError("a trend goes over a grid (over: NAME) or over steps: give one of them")
        return self


class PeakBetween(Frozen):
    """Claimed: the best value inside [low, high] beats the best one outside; validation says which the best are."""

    form: Literal["peak_between"]
    test: Literal["t"]
    over: Name = Field(description="a grid that varies one number")
    low: float
    high: float
    minimum: float = Field(gt=0, description="in points")


class BestOf(Frozen):
    """Claimed: the best of `these` beats the best of `those`; validation says which the best are."""

    form: Literal["best_of"]
    test: Literal["t"]
    these: Terms
    those: Terms
    minimum: float = Field(gt=0, description="in points")


class Kendall(Frozen):
    """Claimed: two rankings of the same things agree (tau-b at least so much), or do not (at most so much)."""

    form: Literal["kendall"]
    test: Literal["bootstrap"]
    a: Terms
    b: Terms
    at_least: float | None = Field(None, ge=-1, le=1)
    at_most: float | None = Field(None, ge=-1, le=1)

    @model_validator(mode="after")
    def _possible(self) -> "Kendall":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most")
        if len(self.a) != len(self.b) or len(self.a) < 4:
            raise ValueError("a and b rank the same things, four at least")
        return self


Comparison = Annotated[
    Difference | Same | Trend | PeakBetween | BestOf | Kendall, Field(discriminator="form", description="what decides")
]


class Study(Frozen):
    """A finding, and everything that decides about it.

    A comparison's test is `t`, Student's over seeds and images (metrics/crossed.py), or `bootstrap`, over the ranked
    experiments (metrics/ranking.py). `params` holds sections of params.yaml, each of which stands instead of the
    user's; an entry under `experiments` may be a grid (expand.py).
    """

    finding: int = Field(ge=1, description="its number in docs/findings.md")
    claim: str = Field(min_length=1, description="in a sentence")
    source: str = Field(min_length=1, description="who says so")
    limits: str = Field("", description="what of the claim is not tested here, and why")
    n: int = Field(ge=2, description="test images of the measure's data set")
    measure: Measure
    comparisons: dict[Name, Comparison] = Field(min_length=1)
    stages: int = Field(150, ge=1, le=250, description="it is refused when it would have more")
    arms: dict[Name, dict[str, Any]] = Field(
        {"main": {}}, min_length=1, description="changes to params for what experiments cannot vary: the data set"
    )
    params: dict[str, Any]
    matrix: Name | None = Field(None, description="a grid of pairs that is drawn as a picture")


def folder(paths: Paths) -> Path:
    """Where the studies lie."""
    return paths.root / "studies"


def names(paths: Paths) -> list[str]:
    """The studies by name, in the order of the findings."""
    found = [file.stem for file in folder(paths).glob("*.yaml")]
    return sorted(found, key=lambda name: (read(name, paths).finding, name))


def read(name: str, paths: Paths) -> Study:
    """Read and check `studies/NAME.yaml`; see `text` and `parsed`."""
    return parsed(text(name, paths), f"{name}.yaml")


def text(name: str, paths: Paths) -> str:
    """What stands in `studies/NAME.yaml`.

    Raises:
        UserError: there is no such study.
    """
    file = folder(paths) / f"{name}.yaml"
    if not file.is_file():
        known = did_you_mean(name, [found.stem for found in folder(paths).glob("*.yaml")])
        raise UserError(f"studies: there is no '{name}'; {known}")
    return file.read_text(encoding="utf-8")


def parsed(text: str, name: str) -> Study:
    """A study from its file's text.

    Raises:
        UserError: it says something that cannot be.
    """
    return validate(Study, parse(text, name), "", file=f"studies/{name}")
