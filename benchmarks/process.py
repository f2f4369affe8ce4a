"""A measurement in a process of its own: `python -m benchmarks.process MODULE:FUNCTION ARGUMENTS RESULT`.

A fresh process has no warm caches, no other library's threads and no allocator settings of the one before it.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import Record
from benchmarks.settings import ROOT
from miyagi.errors import UserError

Call = Callable[..., Record]
"""(target, watch=False, **arguments) -> what the function named `target` returned."""
INTERVAL = 0.05
"""Seconds between two looks at a process's memory."""


def fresh(target: str, *, watch: bool = False, **arguments: Any) -> Record:
    """Call `target` ("benchmarks.module:function") in a new process and give what it returned.

    Args:
        target: a function that takes and gives what JSON can hold.
        watch: add `rss_anon`, the peak of its anonymous memory (its children's apart), in bytes.
        arguments: the function's own.

    Returns:
        The function's record, with `max_rss`: the kernel's peak of the process's resident memory, in bytes.

    Raises:
        UserError: the process failed; all that it said is on stderr, its last line in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.process", target, json.dumps(arguments), str(result)],
            cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            with Memory(process.pid, watch) as memory:
                _, said = process.communicate()
        finally:
            process.kill()  # where we were interrupted; a process that has ended does not mind
            process.wait()
        if process.returncode or not result.is_file():
            print(said, file=sys.stderr)
            last = said.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
            raise UserError(f"{target} failed: {last[0]}")
        record: Record = json.loads(result.read_text(encoding="utf-8"))
    return record | memory.record()


def here(target: str, *, watch: bool = False, **arguments: Any) -> Record:
    """The same call in this process, for tests: what it returns is measured, but not alone."""
    with Memory(os.getpid(), watch) as memory:
        record = _function(target)(**json.loads(json.dumps(arguments)))
    return _resident(record) | memory.record()


class Memory:
    """Watches the anonymous resident memory of a process: RssAnon, in which no page of a mapped file counts.

    Children are left out: after a fork the same pages would be counted in each of them.
    """

    def __init__(self, pid: int, watch: bool) -> None:
        self.pid = pid
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True) if watch else None

    def __enter__(self) -> "Memory":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._over.set()
            self._thread.join()

    def record(self) -> Record:
        """`rss_anon`, where it was watched."""
        return {"rss_anon": self.peak} if self._thread else {}

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, status(self.pid, "RssAnon"))
            if self._over.wait(INTERVAL):
                return


def status(pid: int, field: str) -> int:
    """A field of /proc/PID/status, in bytes; 0 where the process has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(f"{field}:")), 0)


def environment() -> dict[str, str]:
    """This process's, with the checkout's own code first and the environment's programs in the path."""
    paths = [str(ROOT), str(ROOT / "ssl"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def _function(target: str) -> Callable[..., Record]:
    module, _, name = target.partition(":")
    found: Callable[..., Record] = getattr(importlib.import_module(module), name)
    return found


def _resident(record: Record) -> Record:
    # Not ru_maxrss, which a process takes over from the one that started it.
    return record | {"max_rss": status(os.getpid(), "VmHWM")}


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    Path(sys.argv[3]).write_text(json.dumps(_resident(_function(sys.argv[1])(**given))), encoding="utf-8")
