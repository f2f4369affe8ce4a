"""What `miyagi study list` and `miyagi study show` print."""

from typing import Any

from miyagi import params
from miyagi.paths import Paths
from miyagi.studies import expand, run, settings


def listed(paths: Paths) -> list[str]:
    """A line a study: its name, its stages, whether it was begun, its claim."""
    names = settings.names(paths)
    width = max(map(len, names), default=0)
    return [_line(name, width, paths) for name in names]


def _line(name: str, width: int, paths: Paths) -> str:
    study, expanded = _expanded(name, paths)
    total = sum(map(expand.count, expanded.values()))
    begun = all(run.place(name, arm, paths).params.exists() for arm in expanded)
    return f"{study.finding:2}  {name:{width}}  {total:3} stages  {'begun' if begun else '     '}  {study.claim}"


def shown(name: str, paths: Paths) -> list[str]:
    """The study's file, and what it comes to: experiments by name, seeds, stages.

    Raises:
        UserError: the study cannot be run as it stands.
    """
    study, expanded = _expanded(name, paths)
    expand.check(study, expanded)
    lines = [settings.text(name, paths).rstrip(), ""]
    for arm, values in expanded.items():
        lines += [f"# {arm}: {expand.count(values)} stages, seeds {', '.join(map(str, values['seeds']))}"]
        lines += [f"#   {key}" for key in values["experiments"]]
    return lines


def _expanded(name: str, paths: Paths) -> tuple[settings.Study, dict[str, dict[str, Any]]]:
    study = settings.read(name, paths)
    return study, expand.expand(study, params.load(paths.params))
