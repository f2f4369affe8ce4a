"""The journal of one run: every event as one JSON line, on disk before it is sent anywhere.

A journal is locked (`flock`) by the process that owns the run, for as long as that process lives: the kernel lets go
of the lock however the process ends, so whoever gets the lock knows that the run is over.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]


@contextmanager
def locked(path: Path, seconds: float = 60.0) -> Iterator[None]:
    """Hold an exclusive lock on `path`, across processes.

    Raises:
        TimeoutError: another process held it for `seconds`.
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("ab") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} was locked for {seconds:.0f} s") from None
                time.sleep(0.02)
        yield


@dataclass
class Journal:
    """An open, locked journal."""

    path: Path
    descriptor: int
    torn: bool = field(default=False, init=False)

    @classmethod
    def create(cls, folder: Path, name: str) -> "Journal":
        """Make the journal called `name` in `folder` and lock it. Raises OSError where that cannot be done."""
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]", "_", name)
        # Locked before it has its name: `abandoned` must never see it unlocked.
        temporary = folder / f".{name}.tmp"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = temporary.rename(folder / f"{name}.jsonl")
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return cls(path, descriptor)

    def append(self, event: Event) -> None:
        """Write one event; it survives the death of this process. Raises OSError, e.g. on a full disk."""
        line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if self.torn:
            line = b"\n" + line  # half a line was left behind: do not glue this one to it
        self.torn = os.write(self.descriptor, line) != len(line)
        if self.torn:
            raise OSError(f"{self.path} could not be written in full; the disk may be full")

    def read(self) -> list[Event]:
        """All whole events, in order. A torn line (the process died or the disk was full in mid-write) is left out."""
        events = []
        for line in self.path.read_bytes().split(b"\n"):
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and {"event", "time"} <= event.keys():
                    events.append(event)
        return events

    def close(self) -> None:
        """Let go of the lock; the file stays."""
        os.close(self.descriptor)


def abandoned(folder: Path) -> Iterator[Journal | None]:
    """The journals in `folder` that no living process owns, each locked while it is yielded; None for an owned one."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield None
            continue
        if os.fstat(descriptor).st_nlink == 0:  # its owner sent and deleted it while we looked
            os.close(descriptor)
            continue
        yield Journal(path, descriptor)
