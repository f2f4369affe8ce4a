"""How far something is: a bar on a terminal, a plain line now and then anywhere else."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
EVERY, SELDOM = 5.0, 60.0
"""Seconds before the first plain line; each wait is twice the one before, up to this many."""


def progress(items: Iterable[Item], total: int, what: str, unit: str = "it") -> Iterator[Item]:
    """The items, while stderr says how many of `total` are done; nothing is said of what is over at once."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, unit=unit, leave=False, delay=0.5)
        return
    told, wait = time.monotonic(), EVERY
    for done, item in enumerate(items):
        if time.monotonic() - told > wait:
            told, wait = time.monotonic(), min(2 * wait, SELDOM)
            print(f"{what}: {done} of {total} {unit}", file=sys.stderr, flush=True)
        yield item
