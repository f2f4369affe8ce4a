"""A command in a session of its own, of which nothing is left when it ends, is cancelled, or takes too long.

DVC hands no signal on to what it started, so whole groups are killed. Training is made for that: what it writes is
written whole or not at all, and it goes on after its last epoch. And because whoever runs the command can be killed
too, a guard stands between: this file, run as a program, which the kernel tells of its parent's death.
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
        """Kill what runs; nothing is started any more."""
        with self._lock:
            self._over = True
            for process in self._running:
                _kill(process, wait=False)


def _kill(process: subprocess.Popen[bytes], *, wait: bool = True) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if wait:
        process.wait()


def _guard(parent: int, command: Sequence[str]) -> int:
    """Run `command`; when the parent dies, kill the whole session, this process included."""
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            os.killpg(0, signal.SIGKILL)
    code = subprocess.run(command, check=False).returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_guard(int(sys.argv[1]), sys.argv[2:]))
