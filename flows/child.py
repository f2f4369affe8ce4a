"""A command in a session of its own, of which nothing is left when it ends, is cancelled, or takes too long.

DVC hands no signal on to what it started, so everything under it is killed. Training is made for that: what it writes
is written whole or not at all, and it goes on after its last epoch. A guard does the killing: this file, run as a
program. The kernel tells it of the death of whoever runs the command, and makes it the parent of whom the killed leave
behind, so that it can wait for them: DVC takes a dead process that nobody has waited for, as in a container without an
init, for one that still holds its locks.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


class Ended(Exception):
    """The command was not run, or not to its end, because all of them were ended."""


class Children:
    """The commands that run at this moment, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def run(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, timeout: float | None = None
    ) -> None:
        """Run `command` to its end, with what it says appended to `log`.

        Raises:
            subprocess.CalledProcessError: it ended with another code than 0.
            subprocess.TimeoutExpired: it took longer than `timeout` seconds, and is dead.
            Ended: `end` was called.
        """
        guarded = [sys.executable, "-I", __file__, str(os.getpid()), *command]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as said:
            with self._lock:
                if self._over:
                    raise Ended
                process = subprocess.Popen(
                    guarded, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
                self._running.add(process)
            try:
                code = process.wait(timeout)
            finally:
                _kill(process)
                with self._lock:
                    self._running.discard(process)
        if code and self._over:
            raise Ended
        if code:
            raise subprocess.CalledProcessError(code, list(command))

    def end(self) -> None:
        """Kill what runs, and wait until it is gone; nothing is started any more."""
        with self._lock:
            self._over = True
            running = list(self._running)
        for process in running:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Let the guard end all that is under it; it takes as long as the kernel does."""
    process.terminate()
    process.wait()


def _guard(parent: int, command: Sequence[str]) -> int:
    """Run `command`; at its end, at SIGTERM or when the parent dies, kill whatever is left of it, and wait for it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.platform == "linux":
        pr_set_pdeathsig, pr_set_child_subreaper = 1, 36  # prctl.h
        prctl = ctypes.CDLL(None).prctl
        prctl(pr_set_child_subreaper, 1)
        prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            return 128 + signal.SIGTERM
    try:
        code = subprocess.Popen(command).wait()
        return code if code >= 0 else 128 - code
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _kill_children()


def _kill_children() -> None:
    """Each that dies leaves its own children to this process, whatever session they are in."""
    while True:
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ProcessLookupError):
                if int(file.read_text().rpartition(")")[2].split()[1]) == os.getpid():  # the field after the state
                    os.kill(int(file.parent.name), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(_guard(int(sys.argv[1]), sys.argv[2:]))
