"""What `studies/verdicts.json` holds: the verdict on each study, and curves over what it varied.

`miyagi study verdict --all` writes the file and the table of docs/findings.md, both from these models; the report shows
it. They are here because the report may not import `miyagi.studies`, while that may import the report.
"""

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from miyagi.report.tables import Span
from miyagi.report.trends import Trend, places
from miyagi.report.trials import is_wide, short
from miyagi.settings import Frozen


class Outcome(Frozen):
    """One comparison's outcome."""

    name: str
    form: str
    said: str = Field(description="what was compared, in words")
    effect: float | None = Field(description="in points (tau for kendall); null where a ranking holds nothing but ties")
    low: float | None = Field(description="the lower end of the effect's 95 % interval")
    high: float | None
    claimed: str = Field(description="the effect that the study asks for, in words")
    detectable: float | None = Field(description="the smallest that could have been shown; null: none, by so few")
    confirm: float = Field(description="one-sided p of: the effect is not there")
    refute: float = Field(description="one-sided p of: it is there, and as large as matters")
    enough: bool = Field(description="whether the estimate is as large as matters")

    @property
    def span(self) -> Span | None:
        """The effect and the ends of its interval."""
        if self.effect is None or self.low is None or self.high is None:
            return None
        return self.effect, self.low, self.high


class Curve(Frozen):
    """The mean test score at each value of the grid that a comparison goes over."""

    name: str = Field(description="the comparison's")
    setting: str = Field(description="what the grid varies, e.g. temperature")
    values: tuple[float | str, ...] = Field(min_length=1)
    points: tuple[Span, ...] = Field(description="one a value: the mean over seeds and images in percent, low, high")

    @model_validator(mode="after")
    def _paired(self) -> "Curve":
        if len(self.values) != len(self.points):
            raise ValueError(f"{len(self.values)} values have {len(self.points)} points")
        return self


class Verdict(Frozen):
    """One study; without a verdict, p, parts and curves where it has not run."""

    name: str
    finding: int
    claim: str
    source: str
    limits: str
    verdict: str | None = None
    p: float | None = Field(None, description="after Holm's correction over the set")
    n: int = Field(description="test images")
    seeds: int
    text: str | None = Field(None, description="digest of the study's file as it ran")
    parts: tuple[Outcome, ...] = ()
    curves: tuple[Curve, ...] = ()

    @property
    def p_told(self) -> str:
        return "" if self.p is None else "< 0.0001" if self.p < 1e-4 else f"{self.p:.2g}"

    def basis(self, studies: int) -> str:
        """What the verdict stands on, in words; `studies` is their number in the set."""
        seeds = "1 seed: says nothing about others" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"p {self.p_told} after Holm over {studies} studies, n {self.n}, {seeds}"

    @property
    def trends(self) -> list[Trend]:
        """The curves as small multiples: those over one setting share their axes."""
        settings = dict.fromkeys(curve.setting for curve in self.curves)
        return [_trend(setting, [c for c in self.curves if c.setting == setting]) for setting in settings]


def read(text: str) -> list[Verdict]:
    """The verdicts of a `verdicts.json`.

    Raises:
        ValueError: it is no such file; the message says where.
    """
    try:
        return TypeAdapter(list[Verdict]).validate_json(text)
    except ValidationError as failure:
        error = failure.errors()[0]
        raise ValueError(": ".join(filter(None, [".".join(map(str, error["loc"])), error["msg"]]))) from None


def _trend(setting: str, curves: list[Curve]) -> Trend:
    values = dict.fromkeys(value for curve in curves for value in curve.values)
    numbers = sorted(value for value in values if isinstance(value, float))
    whole = len(numbers) == len(values)
    shown: list[float | str] = [*numbers] if whole else [*values]
    at = places(numbers, log=is_wide(numbers)) if whole else places(range(len(shown)))
    points = {curve.name: dict(zip(curve.values, curve.points, strict=True)) for curve in curves}
    spans = {name: [found.get(value) for value in shown] for name, found in points.items()}
    means = {name: [span[0] if span else None for span in own] for name, own in spans.items()}
    return Trend(f"by {setting}", [short(value) for value in shown], at, means, spans)
