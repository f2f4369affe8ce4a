"""Verdicts for people: lines on the terminal, the table of docs/findings.md, studies/verdicts.json for the report."""

from collections.abc import Sequence
from contextlib import suppress
from math import isnan, nan
from pathlib import Path
from typing import Any

from miyagi.errors import UserError
from miyagi.files import digest, write_json, write_text
from miyagi.paths import Paths
from miyagi.report.studies import Outcome, Verdict, read
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
    """Every study of the set: as it has run here, else as studies/verdicts.json has it, else None."""
    studies = {name: settings.read(name, paths) for name in settings.names(paths)}
    kept = {verdict.name: verdict for verdict in _written(paths)}
    found: dict[str, Judged | None] = {}
    for name, study in studies.items():
        try:
            found[name] = judge(measured(name, study, paths), len(studies))
        except NotRun:
            before = kept.get(name)
            same = before is not None and before.text == digest(settings.text(name, paths))
            found[name] = _kept(before) if before and same else None
    return found


def _written(paths: Paths) -> list[Verdict]:
    """What an earlier `write` left, here or in another checkout of this repository."""
    if not paths.verdicts.is_file():
        return []
    try:
        return read(paths.verdicts.read_text(encoding="utf-8"))
    except ValueError as error:
        file = paths.verdicts.relative_to(paths.root)
        raise UserError(f"{file} cannot be read ({error}); run: git checkout {file}") from None


def _kept(verdict: Verdict) -> Judged | None:
    """What a verdict was made from, so that it takes part in the set's correction as if it had run here."""
    if verdict.verdict is None:
        return None
    parts = [
        Part(part.name, part.form, part.said, part.span or (nan, nan, nan), part.claimed, part.confirm, part.refute,
             part.enough, part.detectable)
        for part in verdict.parts
    ]  # fmt: skip
    return Judged(parts, verdict.n, verdict.seeds, verdict.curves)


def verdicts(paths: Paths) -> list[Verdict]:
    """Every study of the set, in its order: what the terminal, the table and the report say of it."""
    every = judged(paths)
    adjusted = corrected(every)
    return [_verdict(name, paths, found, adjusted[name]) for name, found in every.items()]


def _verdict(name: str, paths: Paths, found: Judged | None, p: float) -> Verdict:
    study = settings.read(name, paths)
    outcome: dict[str, Any] = {}
    if found is not None:
        parts = tuple(map(_outcome, found.parts))
        outcome = {"verdict": found.verdict(p), "p": p, "parts": parts, "curves": tuple(found.curves)}
        outcome["text"] = digest(settings.text(name, paths))
    about = {key: getattr(study, key) for key in ("finding", "claim", "source", "limits", "n")}
    return Verdict(name=name, seeds=len(study.params["seeds"]), **about, **outcome)


def _outcome(part: Part) -> Outcome:
    effect, low, high = (None if isnan(x) else x for x in part.span)
    return Outcome(
        name=part.name, form=part.form, said=part.said, effect=effect, low=low, high=high,
        claimed=part.claimed, detectable=part.detectable, confirm=part.confirm, refute=part.refute, enough=part.enough,
    )  # fmt: skip


def told(name: str, paths: Paths) -> list[str]:
    """The verdict on one study in lines, and its picture drawn where it has one and has run here.

    Raises:
        NotRun: it has run neither here nor, by studies/verdicts.json, elsewhere.
    """
    study = settings.read(name, paths)
    every = verdicts(paths)
    (own,) = (verdict for verdict in every if verdict.name == name)
    if own.verdict is None:
        judge(measured(name, study, paths), len(every))  # which says what is missing
    lines = [
        f"{name}: {own.verdict} ({own.basis(len(every))})",
        f"claim: {own.claim} [{own.source}]",
        *(f"  {part.name}: {part.said}: {_effect(part)}, claimed {part.claimed}, {_power(part)}" for part in own.parts),
    ]
    if own.limits:
        lines.append(f"not tested: {own.limits}")
    return lines + [f"picture: {file.relative_to(paths.root)}" for file in _draw(name, study, paths)]


def write(paths: Paths) -> list[Path]:
    """Write the table of docs/findings.md (the text around it stays), studies/verdicts.json and the studies' pictures.

    Returns:
        The files, without the pictures.

    Raises:
        UserError: nothing has run, or docs/findings.md has no place for the table.
    """
    file = paths.root / "docs" / "findings.md"
    every = verdicts(paths)
    if not any(verdict.verdict for verdict in every):
        raise UserError("no study has run; run: miyagi study run NAME")
    text = file.read_text(encoding="utf-8") if file.exists() else f"# Findings\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(
            f"{file.relative_to(paths.root)} lacks the two lines between which the table stands:\n{BEGIN} {END}"
        )
    write_text(file, f"{before}{BEGIN}\n{table(every)}\n{END}{after}")
    write_json(paths.verdicts, [verdict.model_dump(mode="json") for verdict in every])
    for verdict in every:
        if verdict.verdict:
            _draw(verdict.name, settings.read(verdict.name, paths), paths)
    return [file, paths.verdicts]


def table(every: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown table, a line a comparison."""
    lines = [HEADER]
    for verdict in every:
        claim = verdict.claim.replace("|", "\\|")
        first = f"| {verdict.finding} | `{verdict.name}`: {claim}"
        size = f"{verdict.n} | {verdict.seeds} |"
        if verdict.verdict is None:
            lines.append(f"{first} | not run | | | | | | {size}")
        for index, part in enumerate(verdict.parts):
            start = f"{first} | *{verdict.verdict}* | {verdict.p_told}" if index == 0 else "| | | | "
            power = "nothing" if part.detectable is None else f"{part.detectable:.1f}"
            lines.append(f"{start} | {part.name}: {part.said} | {_effect(part)} | {part.claimed} | {power} | {size}")
    return "\n".join(lines)


def _draw(name: str, study: Study, paths: Paths) -> list[Path]:
    file = paths.root / "docs" / f"{name}.png"
    if study.matrix is not None:
        with suppress(NotRun):
            picture.matrix(measured(name, study, paths), study.matrix, file)
            return [file]
    return []


def _effect(part: Outcome) -> str:
    if part.span is None:
        return "none: all are tied"
    value, low, high = part.span
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _power(part: Outcome) -> str:
    if part.detectable is None:
        return "so few experiments could have shown nothing"
    return f"could have shown {part.detectable:.1f}"
