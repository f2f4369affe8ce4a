"""(e) The fixed cost of each stage on a tiny project, and of a `dvc repro` that has nothing to do."""

import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.project import Project, shipped
from benchmarks.ratios import spread
from benchmarks.results import Record, Records, by_round
from benchmarks.session import Session
from benchmarks.tables import Section, shown

PART = "stages"
NOOP = "dvc repro, nothing to do"


def cut(params: dict[str, Any], experiments: list[str]) -> dict[str, Any]:
    """The shipped params.yaml with 256 images of each data set, one epoch, width 8, and only `experiments`."""
    found = dict(params)
    for name, section in found.items():  # any section may list experiments, e.g. those that are fine-tuned
        if isinstance(section, dict) and isinstance(section.get("experiments"), list):
            kept = [experiment for experiment in section["experiments"] if experiment in experiments]
            found[name] = section | {"experiments": kept}
    limits = {"train_limit": 256, "val_limit": 64, "test_limit": 200}
    pretrain = params["pretrain"]
    evaluate = _shorter(params["evaluate"])
    return found | {
        "datasets": {key: dataset | limits for key, dataset in params["datasets"].items()},
        "seeds": params["seeds"][:1],
        "experiments": {name: params["experiments"][name] for name in experiments},
        "encoder": params["encoder"] | {"width": 8},
        "pretrain": pretrain | {"epochs": 1, "batch_size": 64, "monitor": pretrain["monitor"] | {"images": 64}},
        "evaluate": evaluate | {"knn": evaluate["knn"] | {"k": 20}},
    }


def _shorter(value: Any) -> Any:
    """Protocols that train take five steps."""
    if isinstance(value, dict):
        return {key: [5] if key == "steps" else _shorter(inner) for key, inner in value.items()}
    return value


def project(experiments: list[str], targets: list[str], repeats: int) -> Record:
    """Run the DAG once, then without anything to do, then each stage's command by itself.

    Returns:
        first: seconds of the first `dvc repro`; noop: of the next ones; stages: of each stage's command;
        imports: of its imports, by `python -X importtime`.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Project(Path(folder), cut(shipped(), experiments))
        first, _ = made.run("dvc", "repro", *targets)
        made.run("dvc", "repro", *targets)
        noop = [made.run("dvc", "repro", *targets)[0] for _ in range(repeats)]
        found = made.stages()
        took: dict[str, list[float]] = {}
        imported: dict[str, float] = {}
        for name, stage in found.items():
            if "random" in name:
                continue
            took[name] = []
            for _ in range(repeats):
                made.clear(stage)
                took[name].append(made.run(*shlex.split(stage["cmd"]))[0])
            made.clear(stage)
            _, said = made.run(sys.executable, "-X", "importtime", "-c", IMPORTED, *shlex.split(stage["cmd"])[1:])
            imported[name] = import_seconds(said)
        return {"first": first, "count": len(found), "noop": noop, "stages": took, "imports": imported}


IMPORTED = "import sys; from miyagi.cli import main; main(sys.argv[1:])"


def import_seconds(said: str) -> float:
    """The sum of what each module's own code took, from what `-X importtime` printed."""
    return sum(int(own) for own in re.findall(r"^import time:\s+(\d+) \|", said, re.MULTILINE)) / 1e6


def module(name: str) -> Record:
    """Seconds of a Python process that imports one module and ends, and of one that imports nothing."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.perf_counter() - start

    seconds(f"import {name}")  # reads the files into the page cache
    return {"seconds": seconds(f"import {name}"), "python": seconds("pass")}


def run(session: Session) -> None:
    """The imports one by one, then the project."""
    own = session.settings.stages
    session.results.begin(PART, own.model_dump(mode="json"))
    for turn in range(own.repeats):
        for name in own.imports:
            session.once(PART, f"import {name}/{turn}", f"{__name__}:module", name=name)
    session.once(
        PART, "project", f"{__name__}:project", experiments=own.experiments, targets=own.targets, repeats=own.repeats
    )


def section(records: Records, settings: dict[str, Any]) -> Section:
    """Seconds of each stage and of each import."""
    rows = []
    notes = []
    found = records.get("project")
    if found:
        for name, took in found["stages"].items():
            rows.append([f"`{name}`", shown(spread(took)), shown(spread([found["imports"][name]]))])
        rows.append([NOOP, shown(spread(found["noop"])), "-"])
        notes.append(f"The first `dvc repro`, {found['count']} stages: {found['first']:.1f} s.")
    for name in settings["imports"]:
        net = by_round(records, f"import {name}", lambda record: record["seconds"] - record["python"])
        rows.append([f"`import {name}`", shown(spread(net.values())), "-"])
    notes.append(
        "Imports are listed apart: a module's time is that of a process that imports it less that of one that imports "
        "nothing; a stage's is the sum that `python -X importtime` prints, which makes imports a little slower."
    )
    return Section(
        "(e) Fixed cost of a stage",
        f"Each stage's own command, {settings['repeats']} times, in a project of the shipped params.yaml with 256 "
        "images of each data set, conv4 of width 8, one epoch.",
        ["what", "wall, s", "of which imports, s"],
        rows,
        notes=notes,
    )
