"""Scratch that outlives a killed training: a folder keyed by what is being trained, locked while someone trains it.

DVC deletes a stage's outs before it runs the command and writes its lock file afterwards, so resuming lives outside
DVC. The fingerprint holds everything that decides the result; a state is only ever resumed under an equal one.
"""

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from miyagi.errors import UserError
from miyagi.files import replacing

STATE = "state.pt"


@contextmanager
def scratch(parent: Path, fingerprint: str, patience: float | None = None) -> Iterator[Path]:
    """The folder of one training, held under a lock; deleted when the block ends well.

    After `kill -9` of `dvc` its child goes on training. A second run of the same training waits here until the first
    has ended, instead of writing into the same state.

    Args:
        parent: where such folders live.
        fingerprint: names the training.
        patience: seconds to wait for a training of the same fingerprint; None: MIYAGI_PATIENCE, else a day.

    Raises:
        UserError: another process still trains this when patience ends.
    """
    if patience is None:
        try:
            patience = float(os.environ.get("MIYAGI_PATIENCE", 86400))
        except ValueError:
            raise UserError("MIYAGI_PATIENCE is the seconds to wait for another training: a number") from None
    folder = parent / fingerprint
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (parent / f"{fingerprint}.lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; check the folder's permissions") from error
    with lock:
        _acquire(lock.fileno(), fingerprint, patience)
        folder.mkdir(exist_ok=True)  # the one who had the lock may have finished and deleted it
        yield folder
        shutil.rmtree(folder)


def _acquire(descriptor: int, fingerprint: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    told = False
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"another process is training {fingerprint}; wait for it, or end it and run again"
                ) from None
            if not told:
                print(f"another process is training {fingerprint}; waiting for it", file=sys.stderr, flush=True)
                told = True
            time.sleep(0.2)


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the state in one step: a reader finds the last whole one, or none."""
    with replacing(folder / STATE) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(str(error).splitlines()[0]) from error


def load(folder: Path) -> dict[str, Any] | None:
    """The last whole state, or None. Nothing but tensors and plain values is unpickled.

    Raises:
        UserError: the file is damaged, or holds anything else.
    """
    file = folder / STATE
    if not file.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds
        raise UserError(f"cannot resume from {file}: {str(error).splitlines()[0]}; delete it and run again") from error
    return state
