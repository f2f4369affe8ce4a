"""`trials.csv`: one line a trial, without times, so that the same seed gives the same bytes."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from miyagi.files import canonical

BEFORE = ("number", "state", "reason", "epochs", "metric", "value")
"""epochs: trained; value: of the metric on validation, higher is better, of a pruned trial the last one seen. A sweep
that weighs seconds has a column `seconds` too."""
AFTER = ("fresh", "fresh_low", "fresh_high", "vs_defaults", "vs_low", "vs_high", "winner", "reproducible")
"""fresh: the mean over the fresh seeds, with its interval; vs_*: its paired difference to trial 0's."""
PREFIX = "space."
"""Before a dimension's path."""


def text(rows: Sequence[Mapping[str, Any]], paths: Sequence[str], seconds: bool = False) -> str:
    """The CSV text; what a row lacks or has as None is empty, true is `yes`, false `no`.

    Args:
        rows: by column; a trial's values by PREFIX and path.
        paths: the dimensions of the space, in order.
        seconds: whether the rows have them.
    """
    columns = [*BEFORE, *(["seconds"] if seconds else []), *(PREFIX + path for path in paths), *AFTER]
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(column, value) for column, value in row.items()} for row in rows)
    return written.getvalue()


def _cell(column: str, value: Any) -> Any:
    if column.startswith(PREFIX):  # a value of params.yaml, as JSON: null, true and a section are values too
        return canonical(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value
