"""A project to run the DAG in: what ships, in a folder of its own, for the parts that time whole runs of it."""

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.process import environment
from benchmarks.settings import ROOT

COPIED = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", "studies/verdicts.json")
FOREIGN = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")


class Project:
    """The shipped DAG and code in a folder of its own, with other parameters.

    Args:
        root: an empty folder.
        params: what its params.yaml says.
    """

    def __init__(self, root: Path, params: dict[str, Any]) -> None:
        self.root = root
        for name in COPIED:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
        for name in ("ssl", "flows"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        # The copy's own code, compiled once; no server of anybody's and no folders of a make around this.
        self.environment = {name: value for name, value in environment().items() if name not in FOREIGN} | {
            "PYTHONPATH": f"{root / 'ssl'}{os.pathsep}{root}",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
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


def shipped() -> dict[str, Any]:
    """What the shipped params.yaml says."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return found
