"""One run in MLflow: journal first (`journal.py`), send second (`send.py`), and never raise into the work."""

import functools
import math
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from miyagi.errors import UserError
from miyagi.files import file_digest
from miyagi.paths import Paths
from miyagi.settings import Tracking
from miyagi.tracking import durations
from miyagi.tracking.journal import Event, Journal
from miyagi.tracking.send import Sender, flatten, name_of
from miyagi.tracking.store import locate
from miyagi.tracking.trouble import PAUSE, announce, announced, reason, warn

P = ParamSpec("P")
ARTIFACT_LIMIT = 4 * 2**20
"""Bytes. Tables, figures and a small encoder are worth a copy in MLflow; larger outs are in DVC's cache already."""
SLOW = 4.0
"""Seconds. A failure that took this long (a server that hangs) is announced to other processes: they wait too."""


def _never_raises(method: "Callable[Concatenate[Run, P], None]") -> "Callable[Concatenate[Run, P], None]":
    @functools.wraps(method)
    def guarded(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            warn(method.__name__, f"tracking: {method.__name__} failed ({reason(error)}); work goes on")

    return guarded


def _now() -> int:
    return time.time_ns() // 1_000_000


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    values = {name_of(key): float(value) for key, value in metrics.items()}
    finite = {key: value for key, value in values.items() if math.isfinite(value)}
    return finite | {name_of(f"nonfinite/{key}"): 1.0 for key in values.keys() - finite.keys()}


def _revision(root: Path) -> dict[str, str]:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5, check=True
        )
        return {"mlflow.source.git.commit": done.stdout.strip()}
    return {}


class Run:
    """One stage's run in MLflow, a child of its experiment's run. No method raises; trouble is one line on stderr.

    As a context manager it ends as FINISHED, as KILLED on KeyboardInterrupt and SystemExit, else as FAILED.

    Args:
        paths: the project's files; the journal lies in `paths.scratch / "tracking"`.
        settings: where MLflow is.
        stage: e.g. "pretrain".
        target: what the stage runs on, e.g. "simclr-0".
        experiment: the key of the experiment, whose run becomes the parent; None for a run without a parent.
        fingerprint: what identifies the work; the tag `miyagi.fingerprint`.
        params: settings; nested ones become dotted keys.
    """

    def __init__(
        self,
        paths: Paths,
        settings: Tracking,
        stage: str,
        target: str,
        experiment: str | None,
        fingerprint: str,
        params: Mapping[str, Any],
    ) -> None:
        self._paths = paths
        self._folder = paths.scratch / "tracking"
        self._journal: Journal | None = None
        self._sender: Sender | None = None
        self._stage = stage, target
        self._pending: list[Event] = []
        self._retry_at = 0.0
        self._slow = False
        self._done = False
        self._start(settings, stage, target, experiment, fingerprint, params)

    @_never_raises
    def _start(
        self,
        settings: Tracking,
        stage: str,
        target: str,
        experiment: str | None,
        fingerprint: str,
        params: Mapping[str, Any],
    ) -> None:
        import psutil

        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the clock
        store = locate(self._paths, settings)
        self._retry_at = announced(self._folder, store)
        self._slow = self._retry_at > 0
        tags = {"miyagi.role": "stage", "miyagi.stage": stage, "miyagi.target": target}
        tags |= {"miyagi.fingerprint": fingerprint, **_revision(self._paths.root)}
        tags |= {"miyagi.experiment": experiment} if experiment else {}
        journal = uuid.uuid4().hex
        event = {"event": "start", "time": _now(), "journal": journal, "name": f"{stage}@{target}", "tags": tags}
        event |= {"experiment": experiment, "mlflow_experiment": settings.experiment, "params": flatten(params)}
        self._sender = Sender(self._paths, store, event)
        try:
            self._journal = Journal.create(self._folder, f"{stage}-{target}"[:150] + f"-{journal}")
        except OSError as error:
            warn("journal", f"no tracking journal in {self._folder} ({reason(error)}); what MLflow misses is lost")
        self._record(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        self.finish(status, None if error is None else reason(error))

    @_never_raises
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one batch of metrics at `step`, with this process's CPU use (percent of one core) and memory (MiB).

        A value that is not finite is logged as `nonfinite/<key>` = 1: stores disagree on what to do with it.
        """
        system = {
            "system/process_cpu_percent": self._process.cpu_percent(),
            "system/process_memory_mib": self._process.memory_info().rss / 2**20,
        }
        self._record({"event": "metrics", "time": _now(), "step": int(step), "metrics": _finite(metrics) | system})

    @_never_raises
    def headline(self, metrics: Mapping[str, float]) -> None:
        """Copy `metrics` onto the experiment's run (this run, if it has no parent); the latest value is shown."""
        self._record({"event": "headline", "time": _now(), "metrics": _finite(metrics)})

    @_never_raises
    def outs(self, files: Iterable[Path]) -> None:
        """Log files of the project: a tag `miyagi.out.<path from the root>` = "<md5> <bytes>" each, as in `dvc.lock`.

        A file of at most `ARTIFACT_LIMIT` bytes is stored as an artifact too, under the same path.
        """
        for file in files:
            root = Path(os.path.abspath(self._paths.root))  # not resolve(): DVC may make an out a link into its cache
            path = Path(os.path.abspath(root / file))
            inside = path.is_relative_to(root)
            name = path.relative_to(root).as_posix() if inside else path.as_posix()
            try:
                size = path.stat().st_size
                event = {"event": "out", "path": name, "md5": file_digest(path, "md5"), "size": size}
            except OSError as error:
                warn("outs", f"tracking: {name} is not logged ({reason(error)})")
                continue
            event |= {"time": _now(), "artifact": inside and size <= ARTIFACT_LIMIT}
            self._record(event, flush=False)
        self._flush()

    @_never_raises
    def finish(self, status: str = "FINISHED", error: str | None = None) -> None:
        """End the run as FINISHED, FAILED or KILLED; later calls do nothing."""
        if self._done:
            return
        self._record({"event": "finish", "time": _now(), "status": status, "error": error}, flush=False)
        self._done = True
        # A failure that cost little may be over by now, and there is no later chance in this process.
        self._flush(insist=not self._slow)
        if self._journal:
            if not self._pending:
                self._journal.path.unlink(missing_ok=True)
            self._journal.close()
        if status == "FINISHED":
            with suppress(UserError):  # a picture goes without a number; what is wrong with the disk others say
                # From the start of the process: importing torch is a part of what a user waits for.
                durations.keep(self._paths, *self._stage, time.time() - self._process.create_time())

    def _record(self, event: Event, flush: bool = True) -> None:
        if self._done or self._sender is None:
            return
        self._pending.append(event)
        if self._journal:
            try:
                self._journal.append(event)
            except OSError as error:
                warn("journal", f"the tracking journal cannot be written ({reason(error)}); work goes on")
        if flush:
            self._flush()

    def _flush(self, insist: bool = False) -> None:
        if self._sender is None or not self._pending or (time.time() < self._retry_at and not insist):
            return
        started = time.monotonic()
        try:
            notes = self._sender.send(self._pending)
        except Exception as error:
            self._retry_at = time.time() + PAUSE
            self._slow = time.monotonic() - started > SLOW
            if self._slow:
                announce(self._folder, self._sender.store, self._retry_at)
            kept = "the run is kept, send it later with `miyagi track sync`" if self._journal else "the run is lost"
            warn("mlflow", f"MLflow at {self._sender.store.shown} cannot be used; {kept} ({reason(error)})")
        else:
            self._pending.clear()
            for note in notes:
                warn(note, f"tracking: {note}")
