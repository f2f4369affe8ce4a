"""Mistakes that a user can mend, told in one or two lines."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend. The command line prints the message without a traceback and exits with 2.

    The message says what is wrong, where (file, key or stage), and the way out.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `name`, or all of them where none is near."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
