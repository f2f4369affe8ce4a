"""The page: one self-contained HTML file that asks nobody for anything.

Names of classes and files come from folders that anybody may have made, so jinja2 escapes whatever it is given; only
our own SVG passes as it is. A content security policy in the page forbids every request and every script but ours.
"""

import base64
import hashlib
import itertools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jinja2
from markupsafe import Markup

from miyagi.files import canonical
from miyagi.report.agreement import Agreement
from miyagi.report.asked import Asked
from miyagi.report.averages import Average
from miyagi.report.confusion import Confusion
from miyagi.report.dag import Dag
from miyagi.report.differences import PARTS, Pair
from miyagi.report.embedding import COLUMNS, SIDE, Map, colour
from miyagi.report.figures import Image, Query, picture
from miyagi.report.robustness import Relative
from miyagi.report.studies import Verdict
from miyagi.report.sweeps import Sweep
from miyagi.report.tables import FLOORS, Group
from miyagi.report.trends import Trend

PACKAGES = (
    *("miyagi", "torch", "torchvision", "ffcv", "numpy", "scikit-learn", "scipy", "dvc", "mlflow"),
    *("optuna", "pydantic", "safetensors", "matplotlib"),
)


@dataclass(frozen=True)
class Curve:
    """An experiment's learning curves: the SVG, and the same in words, one line a seed."""

    experiment: str
    svg: str
    words: Sequence[str]


@dataclass(frozen=True)
class Data:
    """A data set: images by split, its classes, and the files that could not be read."""

    name: str
    counts: Mapping[str, int]
    classes: Sequence[str]
    skipped: Sequence[str]


@dataclass(frozen=True, order=True)
class Origin:
    """Which data and which code a protocol's numbers of an experiment come from."""

    experiment: str
    protocol: str
    settings: str
    data: str
    code: str


@dataclass(frozen=True)
class Page:
    """Everything that the page shows, ready to print."""

    dataset: str
    made: str  # when, as text
    best: str | None
    methods: Mapping[str, str]  # experiment -> method
    intervals: Sequence[str]
    groups: Sequence[Group]
    curves: Sequence[Curve]
    neighbours: Mapping[str, Sequence[Query]]
    data: Sequence[Data]
    origins: Sequence[Origin]
    descriptions: Mapping[str, str]  # experiment -> its experiment.yaml
    asked: Mapping[str, Asked] = field(default_factory=dict)  # by experiment
    pairs: Mapping[tuple[str, str, str, str], Sequence[Pair]] = field(default_factory=dict)  # by table, see pairs()
    agreements: Sequence[Agreement] = ()
    averages: Sequence[Average] = ()
    relative: Sequence[Relative] = ()
    sweeps: Sequence[Sweep] = ()
    studies: Sequence[Verdict] = ()
    settings: Mapping[str, str] = field(default_factory=dict)  # their digest -> a protocol's settings, as YAML
    trends: Sequence[Trend] = ()
    maps: Mapping[str, Map] = field(default_factory=dict)  # by experiment
    sprite: Image | None = None  # the maps' pictures
    confusions: Mapping[str, Confusion] = field(default_factory=dict)  # by experiment
    confused: str = ""  # the protocol that the confusions are of
    dag: Dag | None = None
    activations: Mapping[str, tuple[str, int, Sequence[tuple[str, Image]]]] = field(default_factory=dict)
    """By experiment: the layer, the side of its map, and the name of each image's class with its picture."""

    @property
    def classes(self) -> Sequence[str]:
        """Those of the data set that was trained on."""
        return next(data.classes for data in self.data if data.name == self.dataset)

    @property
    def lacking(self) -> list[str]:
        """The floors that no experiment provides: the page says so above its tables."""
        return [floor for floor in FLOORS if floor not in self.methods.values()]

    @property
    def untrained(self) -> list[str]:
        drawn = {curve.experiment for curve in self.curves}
        return [name for name in self.methods if name not in drawn]


def render(page: Page) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": Markup, "picture": picture, "sha256": _sha256}
    environment.globals |= {"colour": colour, "side": SIDE, "columns": COLUMNS, "canonical": canonical}
    return environment.get_template("page.html").render(
        page=page, versions=versions(), floors=FLOORS, many=PARTS, numbers=itertools.count(1)
    )


def versions() -> dict[str, str]:
    """The versions of Python and of what the numbers rest on, read from metadata: importing torch takes seconds."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _sha256(text: str) -> str:
    """What a content security policy calls a script by."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
