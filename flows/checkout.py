"""Revisions: which one a checkout stands for, and a worker's clones of it.

On a node all clones share DVC's cache and the scratch folder, so a stage that is tried again there goes on after its
last epoch, and nothing is fetched twice. Each run has its clone alone: two `dvc repro` of one folder would wait for, or
refuse, each other.
"""

import configparser
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TextIO

from miyagi.errors import UserError
from miyagi.files import digest


@dataclass(frozen=True)
class Revision:
    """A commit, and the address that workers clone it from."""

    repository: str
    commit: str


def revision(root: Path) -> Revision:
    """What the checkout at `root` stands for.

    Raises:
        UserError: a worker could not run it: something is not committed, not pushed, or there is no DVC remote.
    """
    if _git(root, "status", "--porcelain"):
        raise UserError("the working tree has changes that no worker can see: commit and push them (`git status`)")
    commit = _git(root, "rev-parse", "HEAD")
    holding = _git(root, "branch", "--remotes", "--contains", commit, "--format", "%(refname:lstrip=2)").split()
    if not holding:
        raise UserError(f"revision {commit[:12]} is on no git remote: `git push` first, workers clone it from there")
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(_git(root, "show", f"{commit}:.dvc/config"))
    if not config.get("core", "remote", fallback=None):
        raise UserError(
            ".dvc/config names no default remote, where workers exchange results: `dvc remote add -d`, commit"
        )
    address = _git(root, "remote", "get-url", holding[0].partition("/")[0])
    local = root / address  # a folder, which a worker reads from elsewhere
    return Revision(str(local.resolve()) if local.is_dir() else address, commit)


def workspace() -> Path:
    """Where this node keeps clones, cache and scratch: $MIYAGI_WORKSPACE, a disk of its own where training is fast."""
    return Path(os.environ.get("MIYAGI_WORKSPACE") or Path.home() / ".cache" / "miyagi").absolute()


@contextmanager
def clone(wanted: Revision, folder: Path) -> Iterator[Path]:
    """A clone of `wanted` under `folder` that nobody else uses until the block ends.

    Raises:
        UserError: it cannot be cloned.
    """
    home = folder / digest(wanted.repository)
    (home / "clones").mkdir(parents=True, exist_ok=True)
    places = (home / "clones" / f"{wanted.commit[:12]}-{number}" for number in count())
    path, lock = next((place, lock) for place in places if (lock := _locked(place)) is not None)
    with lock:
        _delete_others(home / "clones", wanted)
        if not path.exists():
            _clone(wanted, path, home)
        yield path


def _locked(path: Path) -> TextIO | None:
    handle = path.with_suffix(".lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def _clone(wanted: Revision, path: Path, home: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        _git(home, "clone", "--quiet", "--no-checkout", wanted.repository, str(temporary))
        _git(temporary, "checkout", "--quiet", "--detach", wanted.commit)
    except UserError as error:
        raise UserError(f"cannot clone {wanted.commit[:12]} of {wanted.repository}: {error}") from error
    (home / "scratch").mkdir(exist_ok=True)
    (temporary / ".miyagi").symlink_to(home / "scratch")
    with (temporary / ".git" / "info" / "exclude").open("a", encoding="utf-8") as handle:
        handle.write("/.miyagi\n")
    config = configparser.ConfigParser(interpolation=None)
    config["cache"] = {"dir": str(home / "cache")}
    with (temporary / ".dvc" / "config.local").open("w", encoding="utf-8") as handle:
        config.write(handle)
    temporary.rename(path)


def _delete_others(clones: Path, wanted: Revision) -> None:
    """Clones of other revisions that nobody uses; what they hold is in the cache."""
    for path in clones.iterdir():
        if path.is_dir() and not path.name.startswith((".", wanted.commit[:12])):
            lock = _locked(path)
            if lock is not None:
                with lock:
                    shutil.rmtree(path, ignore_errors=True)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"git {arguments[0]} failed"]
        raise UserError(last[0])
    return done.stdout.strip()
