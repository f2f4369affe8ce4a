"""Pictures that live inside the page: images as data URIs, learning curves as inline SVG, nearest neighbours."""

import base64
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]
History = dict[str, list[float | None]]
INK = "#012345"
"""Stands for the text's colour while matplotlib draws; the page's own colour, light or dark, replaces it."""
LINE, OTHER = "#2f7fc1", "#c0672b"  # at least 3:1 on the light and on the dark page
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Neighbour:
    """A train image near a query: its picture, the name of its class, and whether that is the query's class."""

    picture: str
    name: str
    hit: bool


@dataclass(frozen=True)
class Query:
    """A test image and its nearest train images, the nearest first."""

    picture: str
    name: str
    neighbours: Sequence[Neighbour]


@dataclass(frozen=True)
class Found:
    """What an experiment's features find: test images, and for each the nearest train images.

    Attributes:
        queries: Q indices of test images.
        near: Q x k indices of train images, nearest first.
        labels: split -> the labels of all its images.
    """

    queries: NDArray[np.int64]
    near: NDArray[np.int64]
    labels: Mapping[str, NDArray[np.int64]]

    def shown(self, tests: Mapping[int, str], trains: Mapping[int, str], classes: Sequence[str]) -> list[Query]:
        """The queries with pictures (by index) and the names of their classes."""
        test, train = self.labels["test"], self.labels["train"]
        return [
            Query(
                tests[q], classes[test[q]], [Neighbour(trains[i], classes[train[i]], train[i] == test[q]) for i in line]
            )
            for q, line in zip(self.queries.tolist(), self.near.tolist(), strict=True)
        ]


def picture(image: Image, side: int = 96) -> str:
    """A PNG data URI of an H x W (x 3) uint8 image, made smaller where it is larger than `side` pixels."""
    from PIL import Image as Pillow

    drawn = Pillow.fromarray(np.ascontiguousarray(image))
    if max(drawn.size) > side:
        drawn.thumbnail((side, side), Pillow.Resampling.LANCZOS)
    data = io.BytesIO()
    drawn.save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def history(text: str) -> History:
    """The columns of a `history.csv`; an empty cell is None.

    Raises:
        ValueError: a cell is not a number, or a line has more or fewer cells than the header.
    """
    header, *lines = list(csv.reader(io.StringIO(text))) or [[]]
    if any(len(line) != len(header) for line in lines):
        raise ValueError("a line has more or fewer cells than the header")
    return {name: [float(line[i]) if line[i] else None for line in lines] for i, name in enumerate(header)}


def points(past: History, column: str) -> tuple[list[float], list[float]]:
    """The epochs at which `column` has a finite value, and those values."""
    pairs = [
        (epoch, value)
        for epoch, value in zip(past.get("epoch", []), past.get(column, []), strict=False)
        if epoch is not None and value is not None and isfinite(value)
    ]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def quantiles(past: History, kind: str) -> list[list[float]]:
    """The epochs at which the cosines of a kind ("pos" or "neg") were looked at, and each of their quantiles, rising.

    An odd number of quantiles, the median in the middle (metrics/alignment.py); nothing where none was looked at.
    """
    found = [points(past, column) for column in sorted(past) if column.startswith(f"{kind}_q")]
    return [found[0][0], *(values for _, values in found)] if found and found[0][0] else []


def knn_limits(histories: Sequence[History]) -> tuple[float, float]:
    """One range, in percent, for the kNN axes of all experiments: only then can the small panels be compared."""
    values = [value for past in histories for value in points(past, "knn")[1]] or [0.0, 100.0]
    room = max(1.0, 0.08 * (max(values) - min(values)))
    return max(0.0, min(values) - room), min(100.0, max(values) + room)


def curves(name: str, histories: Mapping[int, History], limits: tuple[float, float]) -> str:
    """Loss, online kNN and how views lie by epoch, one line a seed, as inline SVG that takes the page's text colour.

    Args:
        name: the experiment.
        histories: seed -> its history.
        limits: of the kNN axis, in percent.
    """
    from matplotlib.ticker import MaxNLocator

    labels = {"loss": "loss", "knn": "online kNN (%)"}
    compared = [past for past in histories.values() if quantiles(past, "pos")]
    with drawing(name, 3.6, 5.2 if compared else 3.4) as (figure, done):
        panels = figure.subplots(3 if compared else 2, 1, sharex=True)
        for axes, (column, label) in zip(panels, labels.items(), strict=False):
            for dash, (seed, past) in enumerate(histories.items()):
                x, y = points(past, column)
                axes.plot(x, y, color=LINE, ls=DASHES[dash % 4], marker="o", ms=3, label=f"seed {seed}")
            axes.set_ylabel(label)
            plain(axes)
        panels[1].set_ylim(*limits)
        if compared:
            _similarities(panels[2], compared[0])
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(histories) > 1:
            panels[0].legend(frameon=False, fontsize=8)
        return done()


def _similarities(axes: "Axes", past: History) -> None:
    """Histograms of cosines by epoch, as bands between quantiles: of two views of one image, and of two images."""
    for kind, label, color in (("neg", "two images", OTHER), ("pos", "one image", LINE)):
        epochs, *levels = quantiles(past, kind)
        for low, high in zip(levels[: len(levels) // 2], reversed(levels), strict=False):
            axes.fill_between(epochs, low, high, color=color, alpha=0.25, lw=0)
        axes.plot(epochs, levels[len(levels) // 2], color=color, marker="o", ms=3, label=label)
    axes.set_ylabel("cosine of two views")
    axes.set_ylim(-1.05, 1.05)
    axes.legend(frameon=False, fontsize=8)
    plain(axes)


@contextmanager
def drawing(name: str, width: float, height: float) -> "Iterator[tuple[Figure, Callable[[], str]]]":
    """A figure of so many inches, and what makes inline SVG of it that takes the page's text colour.

    Args:
        name: what no other drawing of the page is called.
        width, height: in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")

        def done() -> str:
            text = io.StringIO()
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
            return _inline(text.getvalue(), name)

        yield figure, done


def plain(axes: "Axes") -> None:
    """A faint grid, and no frame where there is no scale."""
    axes.grid(color="#808080", alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def summary(past: History) -> str:
    """A history in words, for whoever does not see the curve."""
    parts = []
    for column, label, unit in (("loss", "loss", ""), ("knn", "online kNN", " %")):
        _, values = points(past, column)
        if values:
            parts.append(f"{label} {values[0]:.2f}{unit} to {values[-1]:.2f}{unit}")
    spread = [points(past, f"{kind}_q{level}")[1] for kind, level in (("pos", "05"), ("pos", "50"), ("neg", "95"))]
    if all(spread):
        low, middle, others = (values[-1] for values in spread)
        parts.append(
            f"in the end 95 % of two views of one image have a cosine above {low:.2f} (median {middle:.2f}), 95 % of "
            f"two images one below {others:.2f},"
        )
    epochs = len(past.get("epoch", []))
    return f"{', '.join(parts) or 'nothing recorded'} in {epochs} epoch{'s' * (epochs != 1)}"


def look_up(bank: Path, layer: str) -> Found:
    """The nearest train images of the first test image of each class, in a bank of features.

    Raises:
        OSError, safetensors.SafetensorError: the bank cannot be read, or lacks the layer.
    """
    from safetensors import safe_open

    with safe_open(bank, "numpy") as tensors:
        labels = {split: tensors.get_tensor(f"{split}.labels") for split in ("train", "test")}
        train, test = tensors.get_tensor(f"train.{layer}"), tensors.get_tensor(f"test.{layer}")
    queries = firsts(labels["test"])
    return Found(queries, nearest(train, test[queries]), labels)


def rows(tensors: Any, name: str, limit: int) -> NDArray[Any]:
    """The first rows of one tensor of an opened safetensors file, whose own slices refuse to end behind the last."""
    part = tensors.get_slice(name)
    found: NDArray[Any] = part[: min(limit, part.get_shape()[0])]
    return found


def firsts(labels: NDArray[np.int64], limit: int = 8) -> NDArray[np.int64]:
    """The index of the first image of each of the first `limit` classes that occur."""
    return np.unique(labels, return_index=True)[1][:limit].astype(np.int64)


def nearest(train: NDArray[np.float32], queries: NDArray[np.float32], k: int = 5) -> NDArray[np.int64]:
    """The indices (Q x k) of the train rows (N x D) with the largest cosine to each query (Q x D), nearest first."""

    def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return scaled

    order = np.argsort(-(unit(queries) @ unit(train).T), axis=1, kind="stable")  # equal cosines: the first image
    return order[:, :k].astype(np.int64)


def _inline(svg: str, name: str) -> str:
    """A matplotlib SVG as it may stand, several times, in one HTML page: no prologue, no address, no shared id."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*xmlns(:\w+)?=\"[^\"]*\"", "", svg, count=2)
    svg = re.sub(r"(\bid=\"|url\(#|xlink:href=\"#)", rf"\g<1>{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg))
    return svg.replace(INK, "currentColor").replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
