"""A study runs at the committed revision, in git worktrees of its own (one an arm) that share the project's DVC cache.

So nothing of the user's is edited, a stage that has run anywhere is not run again, and a killed run goes on where it
was: it is `dvc repro` both times. The stages find their code in the worktree, whatever is installed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from miyagi import params
from miyagi.errors import UserError
from miyagi.files import write_text
from miyagi.paths import Paths
from miyagi.settings import Tracking
from miyagi.studies import expand, settings
from miyagi.tracking.store import locate

HEADER = "# Written by `miyagi study run`, from the study's file. Edits are lost.\n"


def place(name: str, arm: str, paths: Paths) -> Paths:
    """The worktree of one arm of a study."""
    return Paths(paths.scratch / "studies-run" / f"{name}-{arm}")


def run(name: str, paths: Paths, say: Callable[[str], None]) -> None:
    """Run what of a study has not run yet.

    Raises:
        UserError: the study is not committed or has too many stages, or git or DVC fails.
    """
    *inside, revision = _git(paths.root, "rev-parse", "--show-prefix", "HEAD").split("\n")
    if inside:
        raise UserError(f"{paths.root} is a folder inside a git repository; a study needs the repository's root")
    text = settings.text(name, paths)
    if _committed(paths.root, f"studies/{name}.yaml") != text:
        raise UserError(f"studies/{name}.yaml is not committed as it stands; commit it, so that what is claimed "
                        "is written down before it is tested")  # fmt: skip
    study = settings.parsed(text, f"{name}.yaml")
    base = params.parse(_committed(paths.root, "params.yaml") or "{}", "params.yaml")
    expanded = expand.expand(study, base)
    expand.check(study, expanded)
    total = sum(map(expand.count, expanded.values()))
    say(
        f"{name}: {total} stages at revision {revision[:10]}, in {place(name, '*', paths).root.relative_to(paths.root)}"
    )
    if _git(paths.root, "status", "--porcelain", "--untracked-files=no"):
        say("note: uncommitted changes are not part of the study")
    store = locate(paths, params.validate(Tracking, base.get("tracking", {}), "tracking"))
    cache = _command(paths.root, "dvc", "cache", "dir")
    for arm, values in expanded.items():
        tree = place(name, arm, paths)
        _check_out(paths, tree, revision)
        _command(tree.root, "dvc", "config", "--local", "cache.dir", str((paths.root / cache).resolve()))
        tracking = {**values.get("tracking", {}), "uri": store.uri, "experiment": f"study_{name}"}
        write_text(tree.params, HEADER + yaml.safe_dump({**values, "tracking": tracking}, sort_keys=False))
        params.read(tree.params)
        _link_data(paths, tree, values["datasets"])
        _mend(tree)
        targets = [family for family in ("probe", "finetune") if values[family]["protocols"]]
        if subprocess.run([_tool("dvc"), "repro", *targets], cwd=tree.root, env=_environment(tree.root)).returncode:
            raise UserError(f"{name}: a stage failed, see above; `miyagi study run {name}` goes on from there")


def _check_out(paths: Paths, tree: Paths, revision: str) -> None:
    """Make the worktree, or bring it to `revision` with its dvc.lock as it is."""
    if not (tree.root / ".git").exists():
        _git(paths.root, "worktree", "add", "--force", "--detach", str(tree.root), revision)
    elif _git(tree.root, "rev-parse", "HEAD") != revision:
        lock = tree.root / "dvc.lock"
        before = lock.read_text(encoding="utf-8") if lock.exists() else None
        _git(tree.root, "checkout", "--force", "--detach", revision)
        if before is not None:
            write_text(lock, before)


def _link_data(paths: Paths, tree: Paths, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """The user's pictures and downloads are ignored by git, so the worktree has them by links."""
    paths.raw.mkdir(parents=True, exist_ok=True)
    for name in [str(paths.raw.relative_to(paths.root)), *(entry["path"] for entry in datasets.values())]:
        theirs, mine = tree.root / name, paths.root / name
        if not theirs.exists() and mine.exists():  # an absolute path is the same in both
            theirs.parent.mkdir(parents=True, exist_ok=True)
            theirs.symlink_to(mine.resolve(), target_is_directory=mine.is_dir())


def _mend(tree: Paths) -> None:
    """Remove DVC's list of who reads and writes what where a kill left half of it: DVC would refuse to start."""
    file = tree.root / ".dvc" / "tmp" / "rwlock"
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except ValueError:
        file.unlink()


def _committed(root: Path, file: str) -> str | None:
    """A file as the last commit has it; None where it has not."""
    done = subprocess.run(["git", "show", f"HEAD:{file}"], cwd=root, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def _git(root: Path, *arguments: str) -> str:
    return _command(root, "git", *arguments)


def _command(root: Path, tool: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [_tool(tool), *arguments], cwd=root, env=_environment(root), capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise UserError(f"there is no {tool}: a study needs it; install it") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or error.stdout).strip().splitlines()[-1:]
        raise UserError(f"{tool} {arguments[0]} failed in {root}: {' '.join(reason)}") from None
    return done.stdout.strip()


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def _environment(root: Path) -> dict[str, str]:
    """The worktree's code comes first, and the tools beside this Python."""
    found = {"PATH": Path(sys.executable).parent, "PYTHONPATH": root / "ssl"}
    first = {key: os.pathsep.join(filter(None, [str(own), os.environ.get(key)])) for key, own in found.items()}
    return {**os.environ, **first, "DVC_NO_ANALYTICS": "1"}
