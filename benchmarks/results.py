"""What was measured, one JSON file a part: an interrupted benchmark goes on where it was, a finished one is only shown.

A measurement counts again only under the conditions that it was made under: machine, versions, code, settings.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from miyagi.errors import UserError
from miyagi.files import write_json

Record = dict[str, Any]
Records = dict[str, Record]
"""`WHAT/ROUND` (or `RECIPE/WHAT/ROUND`) -> what the process gave."""


class Results:
    """The files `PART.json` in `folder`.

    Args:
        folder: made where it is missing.
        command: how the benchmark was started, for the page.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.folder = folder
        self.command = command
        # Once a run: an edit while it goes on does not divide it.
        self._conditions = {"machine": machine.machine(), "versions": machine.versions(), "code": machine.code()}
        self._revision = machine.revision()
        self._open: dict[str, dict[str, Any]] = {}

    def begin(self, part: str, settings: Any) -> None:
        """Take up `part` where it was measured under the same conditions, else start it anew."""
        conditions = {**self._conditions, "settings": settings}
        old = self.load(part)
        if old is not None and old["conditions"] == conditions:
            self._open[part] = old
            return
        if old is not None:
            print(f"{part}: machine, versions, code or settings are others than last time; starting anew", flush=True)
        self._open[part] = {
            "command": self.command,
            "conditions": conditions,
            "revision": self._revision,
            "load": round(os.getloadavg()[0], 2),
            "began": _now(),
            "ended": _now(),
            "records": {},
        }

    def once(self, part: str, key: str, measure: Callable[[], Record]) -> Record:
        """The record `key` of a part that has begun: as it was kept, or measured now and kept."""
        opened = self._open[part]
        records: Records = opened["records"]
        if key not in records:
            records[key] = measure()
            opened["ended"] = _now()
            write_json(self.folder / f"{part}.json", opened)
            shown = "  ".join(f"{name} {_short(value)}" for name, value in records[key].items() if _short(value))
            print(f"{part}: {key}: {shown}", file=sys.stderr, flush=True)
        return records[key]

    def forget(self, part: str, key: str) -> None:
        """Measure `key` again the next time it is asked for."""
        self._open[part]["records"].pop(key, None)

    def load(self, part: str) -> dict[str, Any] | None:
        """A part's file, or None where there is none.

        Raises:
            UserError: it is not JSON.
        """
        file = self.folder / f"{part}.json"
        if not file.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file}: {error}; delete it and run again") from error
        return found


def by_round(records: Records, what: str, value: Callable[[Record], float]) -> dict[str, float]:
    """`value` of each record called `what`/ROUND, by round."""
    names = {key: key.rpartition("/") for key in records}
    return {names[key][2]: value(record) for key, record in records.items() if names[key][0] == what}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _short(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,.4g}" if isinstance(value, int | float) else ""
