"""The DAG as a picture: every stage that `dvc.lock` knows, what it depends on, and how long it took on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup, escape

WIDTH, STEP, BOX, ROW, TOP = 168, 210, 22, 28, 26


@dataclass(frozen=True)
class Dag:
    """Stages in columns by kind, in the order of the file.

    Attributes:
        columns: kind -> its stages' names.
        edges: (stage, a stage that needs an out of it).
        seconds: stage -> how long it took when it last ran here; none for what came out of the cache.
    """

    columns: Mapping[str, Sequence[str]]
    edges: Sequence[tuple[str, str]]
    seconds: Mapping[str, float]

    def table(self) -> list[tuple[str, str]]:
        """Every stage by its full name and how long it took, for who cannot point at the picture."""
        return [(name, self._took(name)) for names in self.columns.values() for name in names]

    def svg(self) -> Markup:
        """The picture; names come from params.yaml and are escaped."""
        place = {
            name: (STEP * column, TOP + ROW * row)
            for column, names in enumerate(self.columns.values())
            for row, name in enumerate(names)
        }
        height = TOP + ROW * max(map(len, self.columns.values()))
        width = STEP * (len(self.columns) - 1) + WIDTH
        lines = []
        for a, b in self.edges:
            (x, y), (right, below) = place[a], place[b]
            x, y, below = x + WIDTH, y + BOX // 2, below + BOX // 2
            bend = (right - x) / 2
            lines.append(f'<path d="M{x} {y}C{x + bend:.0f} {y} {right - bend:.0f} {below} {right} {below}"/>')
        boxes = "".join(self._box(name, *where) for name, where in place.items())
        heads = "".join(
            f'<text class="kind" x="{STEP * column}" y="14">{escape(kind)}</text>'
            for column, kind in enumerate(self.columns)
        )
        label = f"{len(place)} stages in {len(self.columns)} kinds: " + ", ".join(
            f"{len(names)} {kind}" for kind, names in self.columns.items()
        )
        return Markup(
            f'<svg class="dag" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}"><g class="edges">{"".join(lines)}</g>{heads}{boxes}</svg>'
        )

    def _took(self, name: str) -> str:
        return f"{self.seconds[name]:.1f} s" if name in self.seconds else "not run here, or not to its end"

    def _box(self, name: str, x: int, y: int) -> str:
        seconds = self.seconds.get(name)
        took = "" if seconds is None else f"{seconds:.0f} s" if seconds >= 1 else "&lt; 1 s"
        _, _, target = name.partition("@")
        target = target or name
        short = target if len(target) <= 18 else f"{target[:17]}…"
        state = "restored" if seconds is None else "ran"
        title = f"{name}: {self._took(name)}"
        return (
            f'<g class="{state}"><title>{escape(title)}</title>'
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{BOX}" rx="4"/>'
            f'<text x="{x + 6}" y="{y + 15}">{escape(short)}</text>'
            f'<text class="took" x="{x + WIDTH - 6}" y="{y + 15}">{took}</text></g>'
        )


def read(lock: str, seconds: Mapping[str, float]) -> Dag:
    """The DAG of a `dvc.lock`, which is written stage by stage; the report, which is being made, may not be in it.

    Args:
        lock: the file's text.
        seconds: see `Dag`.

    Raises:
        yaml.YAMLError, KeyError, TypeError: it is no such file.
    """
    stages: dict[str, Any] = yaml.load(lock, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    stages = {**stages, "report": stages.get("report", {"deps": [{"path": "runs"}]})}
    made = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", ())}
    edges: set[tuple[str, str]] = set()
    for name, stage in stages.items():
        for path in (dep["path"] for dep in stage.get("deps", ())):
            # A dependency may be a file, or a folder in which other stages' outs lie.
            makers = [made[path]] if path in made else [made[out] for out in made if out.startswith(f"{path}/")]
            edges.update((maker, name) for maker in makers)
    columns: dict[str, list[str]] = {}
    for name in stages:
        columns.setdefault(name.partition("@")[0], []).append(name)
    before = {name: {a for a, b in edges if b == name} for name in stages}
    ancestors, depth = _ancestors(before)
    order = sorted(columns, key=lambda kind: max(depth[name] for name in columns[kind]))
    # What is needed by way of another stage as well needs no line of its own.
    kept = [(a, b) for a, b in sorted(edges) if not any(a in ancestors[other] for other in before[b])]
    return Dag({kind: sorted(columns[kind]) for kind in order}, kept, seconds)


def _ancestors(before: Mapping[str, set[str]]) -> tuple[dict[str, set[str]], dict[str, int]]:
    """All stages that lie before each, and how many lie on the longest way to it."""
    ancestors: dict[str, set[str]] = {}
    depth: dict[str, int] = {}

    def visit(name: str) -> None:
        if name not in depth:
            for other in before[name]:
                visit(other)
            depth[name] = 1 + max((depth[other] for other in before[name]), default=-1)
            ancestors[name] = before[name].union(*(ancestors[other] for other in before[name]))

    for name in before:
        visit(name)
    return ancestors, depth
