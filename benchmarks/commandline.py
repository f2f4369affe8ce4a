"""What the programs of this package share: how their command is shown, their data's names, how they end."""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from miyagi.errors import UserError


def command(module: str, given: Sequence[str]) -> str:
    """The command line as a page shows it: of a path only the last name, which says enough and names no machine."""
    shown = [Path(word).name if "/" in word else word for word in given]
    return shlex.join(["python", "-m", module, *shown])


def named(images: Path | None) -> tuple[str, str]:
    """The name of the data as pages show it, and as a folder: of the folder given with --images, or the default's."""
    name = "Fashion-MNIST" if images is None else images.resolve().name
    return name, re.sub(r"[^a-z0-9]+", "_", name.lower())


@contextmanager
def ending(program: str) -> Iterator[None]:
    """End the program with a line: 2 for a mistake that the user can mend, 130 where it is interrupted."""
    try:
        yield
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
