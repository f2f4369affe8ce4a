"""What a part shows: a section with a table, and the targets that its numbers are held against."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.ratios import Spread


@dataclass(frozen=True)
class Target:
    """One line of what is promised.

    Attributes:
        name: what is compared.
        wanted: the promise in words, e.g. ">= 12".
        measured: the ratio; None: not measured, or not measurable.
        holds: whether the promise is kept; None where nothing was measured.
        unit: what follows the number.
    """

    name: str
    wanted: str
    measured: Spread | None
    holds: bool | None
    unit: str = "x"


def at_least(name: str, bound: float, measured: Spread | None, unit: str = "x") -> Target:
    """A ratio whose median must not be below `bound`."""
    return Target(name, f">= {bound:g} {unit}", measured, None if measured is None else measured.median >= bound, unit)


@dataclass(frozen=True)
class Section:
    """A part on the page.

    Attributes:
        title: its heading.
        text: what was done, in sentences.
        header: the table's columns.
        rows: its cells.
        targets: what of it was promised.
        notes: what a reader must know beside the table.
    """

    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def number(value: float, digits: int = 3) -> str:
    """`digits` significant digits, and no exponent: 1,230 or 0.0123."""
    scientific = f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - int(scientific.split("e")[1]))
    return f"{float(scientific):,.{decimals}f}"


def shown(found: Spread | None, unit: str = "", digits: int = 3) -> str:
    """Median, and the range where there is more than one value."""
    if found is None:
        return "-"
    text = number(found.median, digits)
    if found.n > 1:
        text += f" ({number(found.low, digits)} to {number(found.high, digits)})"
    return f"{text} {unit}".rstrip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
