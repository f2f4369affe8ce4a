"""Verdicts for people: lines on the terminal, and the table of docs/findings.md."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from miyagi.errors import UserError
from miyagi.files import write_text
from miyagi.paths import Paths
from miyagi.studies import picture, run, settings
from miyagi.studies.measured import Measured, NotRun
from miyagi.studies.settings import Study
from miyagi.studies.verdict import Judged, Part, corrected, judge

BEGIN, END = "<!-- verdicts: written by `miyagi study verdict --all` -->", "<!-- end of verdicts -->"
HEADER = """\
| | finding | verdict | p | comparison | effect [95 %] | claimed | could have shown | n | seeds |
|---|---|---|---|---|---|---|---|---|---|"""


def measured(name: str, study: Study, paths: Paths) -> Measured:
    """A study's runs.

    Raises:
        NotRun: there are none, or the study's file is no longer the one that ran.
    """
    trees = {arm: run.place(name, arm, paths) for arm in study.arms}
    if not all(tree.params.exists() for tree in trees.values()):
        raise NotRun(f"{name} has not run; run: miyagi study run {name}")
    if any(settings.text(name, tree) != settings.text(name, paths) for tree in trees.values()):
        raise NotRun(f"studies/{name}.yaml has changed since it ran; run: miyagi study run {name}")
    return Measured(name, study, trees)


def judged(paths: Paths) -> dict[str, Judged | None]:
    """Every study of the set, None where it has not run, or not to its end."""
    studies = {name: settings.read(name, paths) for name in settings.names(paths)}
    found: dict[str, Judged | None] = dict.fromkeys(studies)
    for name, study in studies.items():
        with suppress(NotRun):
            found[name] = judge(measured(name, study, paths), len(studies))
    return found


def told(name: str, paths: Paths) -> list[str]:
    """The verdict on one study in lines, and its picture drawn where it has one.

    Raises:
        NotRun: it has not run, or not to its end.
    """
    study = settings.read(name, paths)
    every = judged(paths)
    found = every[name] or judge(measured(name, study, paths), len(every))  # which says what is missing
    adjusted = corrected(every)[name]
    lines = [
        f"{name}: {found.verdict(adjusted)} (p {_p(adjusted)} after Holm over {len(every)} studies, "
        f"n {found.n}, {_seeds(found.seeds)})",
        f"claim: {study.claim} [{study.source}]",
        *(f"  {part.name}: {part.said}: {_effect(part)}, claimed {part.claimed}, {_power(part)}"
          for part in found.parts),
    ]  # fmt: skip
    if study.limits:
        lines.append(f"not tested: {study.limits}")
    return lines + [f"picture: {file.relative_to(paths.root)}" for file in _draw(name, study, paths)]


def write(paths: Paths) -> Path:
    """Write the table of docs/findings.md, and the studies' pictures; the text around the table stays.

    Raises:
        UserError: nothing has run, or the file has no place for the table.
    """
    file = paths.root / "docs" / "findings.md"
    every = judged(paths)
    if not any(every.values()):
        raise UserError("no study has run; run: miyagi study run NAME")
    text = file.read_text(encoding="utf-8") if file.exists() else f"# Findings\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(
            f"{file.relative_to(paths.root)} lacks the two lines between which the table stands:\n{BEGIN} {END}"
        )
    write_text(file, f"{before}{BEGIN}\n{table(every, paths)}\n{END}{after}")
    for name in every:
        if every[name]:
            _draw(name, settings.read(name, paths), paths)
    return file


def table(every: Mapping[str, Judged | None], paths: Paths) -> str:
    """The verdicts as a Markdown table, a line a comparison."""
    adjusted = corrected(every)
    lines = [HEADER]
    for name, found in every.items():
        study = settings.read(name, paths)
        claim = study.claim.replace("|", "\\|")
        first = f"| {study.finding} | `{name}`: {claim}"
        if found is None:
            lines.append(f"{first} | not run | | | | | | {study.n} | {len(study.params['seeds'])} |")
            continue
        for index, part in enumerate(found.parts):
            start = f"{first} | *{found.verdict(adjusted[name])}* | {_p(adjusted[name])}" if index == 0 else "| | | | "
            power = "" if part.detectable is None else f"{part.detectable:.1f}"
            lines.append(f"{start} | {part.name}: {part.said} | {_effect(part)} | {part.claimed} | {power} "
                         f"| {found.n} | {found.seeds} |")  # fmt: skip
    return "\n".join(lines)


def _draw(name: str, study: Study, paths: Paths) -> list[Path]:
    if study.matrix is None:
        return []
    file = paths.root / "docs" / f"{name}.png"
    picture.matrix(measured(name, study, paths), study.matrix, file)
    return [file]


def _effect(part: Part) -> str:
    value, low, high = part.span
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _power(part: Part) -> str:
    if part.detectable is None:
        return "interval over experiments"
    return f"could have shown {part.detectable:.1f}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _seeds(seeds: int) -> str:
    return "1 seed: says nothing about others" if seeds == 1 else f"{seeds} seeds"
