"""From a study to a whole `params.yaml`, and to the list of its stages.

An entry under `experiments` may be a grid. `vary` gives lists of values, by dotted keys; every combination becomes an
experiment. `pairs` gives named changes; each alone and every two together become experiments:

    tau: {method: simclr, vary: {temperature: [0.1, 0.5]}}       -> tau_0_1, tau_0_5
    op: {method: simclr, pairs: {crop: {...}, blur: {...}}}      -> op_crop, op_blur, op_crop_blur
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miyagi.errors import UserError, did_you_mean
from miyagi.files import canonical
from miyagi.params import Params, merge
from miyagi.studies.settings import Study, Term

Entries = dict[str, dict[str, Any]]
KEPT = ("runtime", "tracking")
"""Sections of the project's params.yaml that a study leaves as they are, but for the keys that it states."""


@dataclass(frozen=True)
class Grid:
    """The experiments of one grid, in order.

    Attributes:
        values: experiment -> its value (`vary` with one key), its values, or the names of its changes (`pairs`).
    """

    values: Mapping[str, Any]


def experiments(entries: Mapping[str, Mapping[str, Any]]) -> tuple[Entries, dict[str, Grid]]:
    """Ordinary entries of params.yaml, and the grids that they come from.

    Raises:
        UserError: a grid is empty or not what it should be, or two experiments get one name.
    """
    found: Entries = {}
    grids: dict[str, Grid] = {}
    for name, entry in entries.items():
        key = f"params.experiments.{name}"
        if not isinstance(entry, dict):
            raise UserError(f"{key}: expected settings, got {entry!r}")
        rest = {k: v for k, v in entry.items() if k not in ("vary", "pairs")}
        made: list[tuple[str, Any, dict[str, Any]]] = [(name, None, {})]
        if "vary" in entry:
            made = [(f"{name}_{_text(values)}", values[0] if len(values) == 1 else values, changes)
                    for values, changes in _varied(entry["vary"], f"{key}.vary")]  # fmt: skip
        elif "pairs" in entry:
            made = [(f"{name}_{'_'.join(parts)}", parts, changes)
                    for parts, changes in _paired(entry["pairs"], f"{key}.pairs")]  # fmt: skip
        for own, _, changes in made:
            if own in found:
                raise UserError(f"{key}: two experiments would be called {own}; rename one")
            found[own] = merge(rest, changes)
        if made[0][0] != name:
            grids[name] = Grid({own: value for own, value, _ in made})
    return found, grids


def _varied(vary: Any, key: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    if not isinstance(vary, dict) or not vary or not all(isinstance(v, list) and v for v in vary.values()):
        raise UserError(f"{key}: give each key a list of values, e.g. {{temperature: [0.1, 0.5]}}")
    combinations = []
    for values in itertools.product(*vary.values()):
        changes: dict[str, Any] = {}
        for dotted, value in zip(vary, values, strict=True):
            for part in reversed(dotted.split(".")):
                value = {part: value}
            changes = merge(changes, value)
        combinations.append((values, changes))
    return combinations


def _paired(pairs: Any, key: str) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(pairs, dict) or len(pairs) < 2 or not all(isinstance(v, dict) for v in pairs.values()):
        raise UserError(f"{key}: give two named changes or more, e.g. {{blur: {{augment: {{blur: {{}}}}}}}}")
    both = itertools.combinations(pairs, 2)
    return [((name,), changes) for name, changes in pairs.items()] + [
        ((a, b), merge(pairs[a], pairs[b])) for a, b in both
    ]


def _text(values: Sequence[Any]) -> str:
    """Values as a part of an experiment's name, which holds letters, digits and `_` alone."""
    return re.sub(r"[^a-z0-9]+", "_", "_".join(canonical(value).lower() for value in values)).strip("_")


def expand(study: Study, base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each arm's whole params.yaml.

    Args:
        study: the study.
        base: the project's own params.yaml. KEPT is taken over, and sections that only some stages have (`finetune`)
            with their lists emptied: what they name is no part of the study.

    Raises:
        UserError: the study leaves out a section that decides, or a grid is not what it should be.
    """
    needed = {key for key, field in Params.model_fields.items() if field.is_required()} - {*KEPT, "finetune"}
    if missing := sorted(needed - study.params.keys()):
        raise UserError(f"params.{missing[0]}: missing; a study states all that decides")
    own = {key: value if key in KEPT else _emptied(value) for key, value in base.items()}
    stated = {key: merge(base.get(key, {}), value) if key in KEPT else value for key, value in study.params.items()}
    result = {}
    for arm, changes in study.arms.items():
        result[arm] = {**own, **merge(stated, changes)}
        result[arm]["experiments"] = experiments(result[arm]["experiments"])[0]
    return result


def _emptied(section: Any) -> Any:
    if isinstance(section, dict):
        return {key: [] if isinstance(value, list) else value for key, value in section.items()}
    return section


def count(params: Mapping[str, Any]) -> int:
    """How many stages these params have, the report not counted: a study reads the rows themselves."""
    sets, names, seeds, tuned = (params[key] for key in ("datasets", "experiments", "seeds", "finetune"))
    of_an_encoder = 1 + len(sets) + len(params["probe"]["protocols"])
    fine_tuned = len(tuned["experiments"]) * len(tuned["protocols"])
    return len(sets) + len(names) + len(seeds) * (len(names) * of_an_encoder + fine_tuned)


def check(study: Study, expanded: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a UserError where a comparison names what the study has not got, or the study has too many stages."""
    known = next(iter(expanded.values()))["experiments"]
    grids = experiments(study.params["experiments"])[1]
    for name, comparison in study.comparisons.items():
        over = getattr(comparison, "over", None)
        if over is not None and over not in grids:
            raise UserError(f"comparisons.{name}.over: there is no grid '{over}'; {did_you_mean(over, grids)}")
        for term in terms(comparison):
            if term.experiment not in known:
                hint = did_you_mean(term.experiment, known)
                raise UserError(f"comparisons.{name}: there is no experiment '{term.experiment}'; {hint}")
            if term.arm is not None and term.arm not in study.arms:
                hint = did_you_mean(term.arm, study.arms)
                raise UserError(f"comparisons.{name}: there is no arm '{term.arm}'; {hint}")
    total = sum(count(params) for params in expanded.values())
    if total > study.stages:
        raise UserError(f"the study has {total} stages, more than the {study.stages} that it may have; "
                        "take fewer seeds or values, or raise `stages` (at most 250)")  # fmt: skip


def terms(comparison: Any) -> list[Term]:
    """Every term that a comparison names, those of its steps included."""
    found: list[Term] = []
    for name in ("plus", "minus", "these", "those", "a", "b"):
        found += getattr(comparison, name, ())
    for step in getattr(comparison, "steps", None) or ():
        found += terms(step)
    return found
