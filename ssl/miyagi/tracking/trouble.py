"""When MLflow cannot be used: one line on stderr, and a pause that other processes keep too."""

import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from miyagi.files import digest
from miyagi.tracking.store import Store

PAUSE = 60.0
"""Seconds without a further attempt after one that failed."""
_warned: set[str] = set()


def warn(kind: str, text: str) -> None:
    """One line on stderr, once a process for each kind."""
    if kind not in _warned:
        _warned.add(kind)
        print(f"miyagi: {text}", file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """An exception in at most 200 characters of one line, without the password that a URL in it may hold."""
    text = re.sub(r"//[^/@ ]*@", "//***@", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200].encode("utf-8", "replace").decode()


def _marker(folder: Path, store: Store) -> Path:
    return folder / f"down-{digest(store.uri)}"


def announce(folder: Path, store: Store, until: float) -> None:
    """Tell the processes that start before `until` (Unix time) that this store hangs: they need not find out."""
    with suppress(OSError):
        _marker(folder, store).write_text(str(until))


def announced(folder: Path, store: Store) -> float:
    """Until when this store is not to be tried (Unix time); 0 when it may be."""
    with suppress(OSError, ValueError):
        until = float(_marker(folder, store).read_text())
        if time.time() < until <= time.time() + PAUSE:
            return until
    return 0.0
