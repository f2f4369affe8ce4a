"""(e) The fixed cost of each stage on a tiny project, and of a `dvc repro` that has nothing to do."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.process import environment
from benchmarks.ratios import spread
from benchmarks.results import Record, Records, by_round
from benchmarks.session import Session
from benchmarks.settings import ROOT
from benchmarks.tables import Section, shown

PART = "stages"
COPIED = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore")
NOOP = "dvc repro, nothing to do"


class Project:
    """The shipped DAG and code in a folder of its own, with params.yaml cut down to 256 images a data set."""

    def __init__(self, root: Path, experiments: list[str]) -> None:
        self.root = root
        for name in COPIED:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
        shutil.copytree(ROOT / "ssl", root / "ssl", ignore=shutil.ignore_patterns("__pycache__"))
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        (root / "params.yaml").write_text(yaml.safe_dump(cut(params, experiments)), encoding="utf-8")
        # The copy's own code, compiled once; no tracking server and no folders of a make around this.
        self.environment = {
            name: value
            for name, value in environment().items()
            if name not in ("MLFLOW_TRACKING_URI", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        } | {"PYTHONPATH": str(root / "ssl"), "GIT_CONFIG_GLOBAL": os.devnull}
        self.run("git", "init", "-q")

    def run(self, *command: str) -> tuple[float, str]:
        """Seconds of a command, and what it said on both channels."""
        start = time.perf_counter()
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        return seconds, done.stdout + done.stderr

    def stages(self) -> dict[str, dict[str, Any]]:
        """What dvc.lock says of each stage that has run: cmd and outs among others."""
        lock: dict[str, dict[str, Any]] = yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))
        return lock["stages"]

    def clear(self, stage: dict[str, Any]) -> None:
        """Delete a stage's outs, as DVC does before it runs it."""
        for out in stage["outs"]:
            path = self.root / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


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
        made = Project(Path(folder), experiments)
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
