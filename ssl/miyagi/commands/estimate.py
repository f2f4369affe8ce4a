"""`miyagi estimate`: time and disk of the DAG as configured, on this machine, from a few measured steps of each stage.

Each stage is what it costs to start (Python, torch, MLflow, DVC's own work) and what it costs to work. Both are
measured (commands/measure.py): a few training steps of each experiment, the embedding of a few hundred images, each
protocol on few images or with few steps. What grows is scaled to the configured images, steps and repetitions.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from miyagi.commands.measure import Bench, Cost, started
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.progress import progress

DVC = 1.0
"""Seconds a stage that DVC itself takes: its lock, hashes of dependencies and outs, `dvc.lock`. Read off the
timeline of one default run on two cores."""
REPORT = 0.8
"""Seconds of the report an experiment, beside its start: reading its features and drawing. Read off the same run."""
LIGHT = ("sweep", "probe", "report")
"""The stages that import no torch."""
KINDS = ("prepare", "sweep", "pretrain", "embed", "probe", "finetune", "report")


@dataclass(frozen=True)
class Stage:
    """One stage of the DAG: its name before the `@`, and what it costs."""

    kind: str
    cost: Cost


def run(params: Params, paths: Paths) -> list[Stage]:
    """What each stage of the DAG would cost if none of it were cached.

    Images come from the betons where they exist, else from the source. Nothing in the project is touched: what is
    measured is written to a temporary folder. Seeds cost alike, and so do experiments for a protocol on frozen
    features. Every trial of a sweep counts as one with the defaults: what pruning saves is known afterwards. The stages
    `annotate` and `dense` are not in it.

    Raises:
        UserError: a data set has no images, or a stage cannot do what params.yaml asks.
    """
    with tempfile.TemporaryDirectory(prefix="miyagi-estimate-") as folder:
        bench = Bench(params, paths, Paths(Path(folder)))
        ffcv = "from miyagi.data.threads import import_ffcv; import_ffcv()"
        light, torch = started("probe") + DVC, started("pretrain") + DVC
        start = {kind: light if kind in LIGHT else torch for kind in KINDS} | {
            "prepare": started("prepare", ffcv) + DVC
        }
        seeds, names, datasets = len(params.seeds), list(params.experiments), list(params.datasets)
        todo: list[tuple[str, int, tuple[str, ...]]] = [
            *(("prepare", 1, (dataset,)) for dataset in datasets),
            *(("sweep", 1, (name,)) for name in names),
            *(("pretrain", seeds, (name,)) for name in names),
            *(("embed", seeds, (name, dataset)) for name in names for dataset in datasets),
            *(("probe", seeds, (name, protocol)) for name in names for protocol in params.probe.protocols),
            *(("finetune", seeds, (name, protocol))
              for name in params.finetune.experiments for protocol in params.finetune.protocols),
        ]  # fmt: skip
        found = []
        for kind, times, what in progress(todo, len(todo), "measuring", "stages"):
            cost = getattr(bench, kind)(*what)
            found += [Stage(kind, Cost(start[kind] + cost.seconds, cost.bytes))] * times
        return [*found, Stage("report", Cost(start["report"] + REPORT * len(names) * seeds))]


def told(stages: Sequence[Stage], dense: bool = False) -> list[str]:
    """A line a kind of stage, and the total.

    Args:
        stages: what `run` found.
        dense: whether params.yaml asks for dense stages, which are then said to be missing.
    """
    lines = [f"{'stage':10} {'how many':>8} {'time':>10} {'disk':>10}"]
    for kind in KINDS:
        own = [stage.cost for stage in stages if stage.kind == kind]
        if own:
            lines.append(_line(kind, own))
    lines.append(_line("total", [stage.cost for stage in stages]))
    if dense:
        lines.append("not in it: the stages annotate and dense (`dense:` in params.yaml)")
    return [*lines, "on this machine as busy as it is now, one stage at a time, with nothing cached; DVC's cache takes "
            "the disk a second time where the file system cannot share blocks"]  # fmt: skip


def _line(name: str, costs: Iterable[Cost]) -> str:
    costs = list(costs)
    seconds, size = sum(cost.seconds for cost in costs), sum(cost.bytes for cost in costs)
    return f"{name:10} {len(costs):8} {_time(seconds):>10} {_size(size):>10}"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
