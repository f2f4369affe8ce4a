"""`miyagi track sync`: send the journals that finished or killed processes left behind."""

import os
from dataclasses import dataclass

from miyagi.paths import Paths
from miyagi.settings import Tracking
from miyagi.tracking.journal import Journal, abandoned, locked
from miyagi.tracking.send import Sender
from miyagi.tracking.store import Store, connect, locate
from miyagi.tracking.trouble import reason


@dataclass(frozen=True)
class Synced:
    """What `sync` did, in journals, which is to say runs."""

    replayed: int
    """Sent whole, and removed."""
    left: int
    """Not sent; still there."""
    alive: int
    """Owned by a living process, which sends them itself."""
    notes: tuple[str, ...]
    """One line for each thing that could not be sent, and why."""

    def __str__(self) -> str:
        counts = f"{self.replayed} runs sent to MLflow, {self.left} left, {self.alive} still running"
        return "\n".join([counts, *self.notes])


def sync(paths: Paths, settings: Tracking) -> Synced:
    """Send every journal that no living process owns; doing it twice does no harm, and no trouble with MLflow raises.

    A run without an end in its journal (its process was killed) ends as KILLED, at the time of its last event.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # nothing but a person waits: a slow server may be slow
    folder, store = paths.scratch / "tracking", locate(paths, settings)
    replayed = left = alive = 0
    notes: list[str] = []
    usable: bool | None = None
    for journal in abandoned(folder):
        if journal is None:
            alive += 1
            continue
        if usable is None:  # asked once, and only if there is something to send
            usable = _usable(paths, store, notes)
        if usable and _replay(paths, store, journal, notes):
            replayed += 1
        else:
            left += 1
        journal.close()
    return Synced(replayed, left, alive, tuple(notes))


def _usable(paths: Paths, store: Store, notes: list[str]) -> bool:
    try:
        with locked(paths.scratch / "tracking" / "lock"):
            connect(store.uri).search_experiments(max_results=1)
    except Exception as error:
        notes.append(f"MLflow at {store.shown} cannot be used ({reason(error)})")
        return False
    return True


def _replay(paths: Paths, store: Store, journal: Journal, notes: list[str]) -> bool:
    """Send one journal and remove it; False, with a note, where that fails."""
    try:
        events = journal.read()
        if not events or events[0]["event"] != "start":
            aside = journal.path.rename(journal.path.with_suffix(".unreadable"))
            notes.append(f"{aside}: the start of this journal is damaged, so nothing says which run it was")
            return False
        if events[-1]["event"] != "finish":
            events.append({"event": "finish", "time": events[-1]["time"], "status": "KILLED"})
        notes += Sender(paths, store, events[0]).send(events)
        journal.path.unlink()
    except Exception as error:
        notes.append(f"{journal.path.stem}: not sent ({reason(error)})")
        return False
    return True
