"""One stage, run by DVC, which alone decides whether there is anything to do: on this machine, or on a cluster's.

On one machine many stages share a checkout: `dvc --wait-for-lock repro --single-item STAGE`. On a cluster each has a
clone of the revision to itself (`flows/checkout.py`): what comes before it is pulled, it runs, and its results are
pushed. `ONLY_STAGE` keeps such a clone from running anything else, where something earlier is not in the remote.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.child import Children
from miyagi.errors import UserError

DVC = (sys.executable, "-m", "dvc")
CLI = (sys.executable, "-P", "-m", "miyagi.cli")


class StageFailed(Exception):
    """A stage did not end well; another attempt may."""


def run(
    children: Children, root: Path, name: str, *, force: bool = False, timeout: float | None = None,
    extra: Mapping[str, str] = {},
) -> None:  # fmt: skip
    """Bring one stage up to date in the checkout at `root`, whose other stages may be running.

    Args:
        children: who to tell when everything has to end.
        root: the checkout.
        name: of the stage.
        force: run it although nothing has changed.
        timeout: in seconds.
        extra: environment variables, e.g. the GPU to use.

    Raises:
        UserError: the stage refused what it was given; another attempt would too.
        StageFailed: it failed or took too long; the message names its log.
    """
    command = [*DVC, "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), name]
    _attempt(children, [command], root, name, timeout, extra)


def run_alone(children: Children, root: Path, name: str, *, timeout: float | None = None) -> None:
    """Bring one stage up to date in a clone of its own, from the DVC remote and back to it. See `run`.

    What an earlier run on this node could not send to MLflow is sent first; no report here would ever do it.
    """
    waiting = any((root / ".miyagi" / "tracking").glob("*.jsonl"))
    commands = [
        *([[*CLI, "track", "sync"]] if waiting else []),
        [*DVC, "repro", "--pull", name],
        [*DVC, "push", "--run-cache"],
    ]
    _attempt(children, commands, root, name, timeout, {"ONLY_STAGE": name})


def work_on_sweep(children: Children, root: Path, experiment: str, needs: Sequence[str]) -> None:
    """Run trials of a sweep that `sweep@EXPERIMENT` has begun elsewhere, until it ends. See `run`.

    The study's storage is in params.yaml; what the trials read comes from the DVC remote, made by the stages `needs`.
    """
    name = f"sweep@{experiment}"
    pulled = [[*DVC, "repro", "--pull", *needs]] if needs else []
    trials = [*CLI, "sweep-worker", experiment]
    _attempt(children, [*pulled, trials], root, f"{name}-worker", None, {"ONLY_STAGE": name})


def log_of(root: Path, name: str) -> Path:
    """Where everything that a stage says is written."""
    return root / ".miyagi" / "flows" / f"{name}.log"


def environment(root: Path) -> dict[str, str]:
    """This process's, with the checkout's own code first and this Python's programs in the path."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(root / "ssl"), os.environ.get("PYTHONPATH")))),
    }


def _attempt(
    children: Children, commands: Sequence[Sequence[str]], root: Path, name: str, timeout: float | None,
    extra: Mapping[str, str],
) -> None:  # fmt: skip
    log = log_of(root, name)
    before = log.stat().st_size if log.is_file() else 0
    try:
        for command in commands:
            children.run(command, cwd=root, env={**environment(root), **extra}, log=log, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"{name}: not done after {timeout:g} s, its meta.timeout in dvc.yaml; log: {log}") from error
    except subprocess.CalledProcessError as error:
        with log.open("rb") as handle:
            handle.seek(before)
            said = handle.read().decode(errors="replace")
        mistake = re.findall(r"^miyagi: (.+)", said, re.MULTILINE)
        if mistake and re.search(r"exited with 2$", said, re.MULTILINE):
            raise UserError(f"{name}: {mistake[-1]}") from error
        reason = re.findall(r"^ERROR: (.+)", said, re.MULTILINE)
        why = reason[0] if reason else f"exit code {error.returncode}"
        raise StageFailed(f"{name}: {why}; log: {log}") from error
