"""The page: targets first, then every part with what it was measured on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import data_path, growth, orchestration, pretraining, stages, time_to_accuracy
from benchmarks.results import Results
from benchmarks.tables import Section, Target, shown, table
from miyagi.files import write_text

PARTS = ("data_path", "pretraining", "time_to_accuracy", "stages", "growth", "orchestration")


def page(results: Results, name: str) -> str:
    """Everything that has been measured, as Markdown.

    Args:
        results: the files of one data set.
        name: of the data.
    """
    kept = {part: found for part in (*PARTS, "preparation") if (found := results.load(part)) is not None}
    sections = {part: section(part, results) for part in PARTS if part in kept}
    targets = [target for one in sections.values() for target in one.targets]
    lines = [
        "# Benchmarks",
        "Written by `make bench`; do not edit. A number is the median of its rounds (smallest to largest); a ratio is "
        "taken within each round, and its median counts. Every measurement is a process of its own that runs alone.",
        _conditions(kept, name),
    ]
    if targets:
        lines += ["## Targets", table(["what", "wanted", "measured", "n", "holds"], [_target(t) for t in targets])]
    missing = [part for part in PARTS if part not in kept]
    if missing:
        lines.append(f"Not measured yet: {', '.join(missing)}.")
    for one in sections.values():
        lines += [f"## {one.title}", one.text, table(one.header, one.rows), *one.notes]
    return "\n\n".join(lines) + "\n"


def section(part: str, results: Results) -> Section:
    """One part's section from its file."""
    found = results.load(part)
    assert found is not None
    records, settings = found["records"], found["conditions"]["settings"]
    if part == "data_path":
        return data_path.section(records, settings)
    if part == "pretraining":
        tried = results.load("lightly")
        return pretraining.section(records, settings, tried["records"] if tried else {})
    sections: dict[str, Callable[..., Section]] = {
        module.PART: module.section for module in (time_to_accuracy, stages, growth, orchestration)
    }
    return sections[part](records, settings)


def write(results: Results, name: str, file: Path) -> str:
    """Write the page to `file`, and return it."""
    text = page(results, name)
    write_text(file, text)
    return text


def _target(target: Target) -> list[str]:
    holds = {None: "not measured", True: "yes", False: "**no**"}[target.holds]
    n = str(target.measured.n) if target.measured else "-"
    return [target.name, target.wanted, shown(target.measured, target.unit), n, holds]


def _conditions(kept: dict[str, dict[str, Any]], name: str) -> str:
    """Command, dates, machine, versions; and whether all parts share them."""
    if not kept:
        return "Nothing has been measured yet."
    first = next(iter(kept.values()))
    machine, versions = first["conditions"]["machine"], first["conditions"]["versions"]
    began, ended = min(part["began"] for part in kept.values()), max(part["ended"] for part in kept.values())
    loads = ", ".join(f"{part} {found['load']}" for part, found in kept.items())
    rows = [
        ["command", f"`{first['command']}`"],
        ["from, to", f"{began}, {ended}"],
        ["data", _data(kept.get("preparation"), name)],
        ["processor", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB"],
        ["system", f"{machine['system']}, Python {machine['python']}"],
        ["versions", ", ".join(f"{package} {version}" for package, version in versions.items())],
        ["code", f"git {first['revision']}, digest {first['conditions']['code']}"],
        ["load average when each part began", loads],
    ]
    text = table(["", ""], rows)
    for what in ("machine", "versions", "code"):
        others = [part for part, found in kept.items() if found["conditions"][what] != first["conditions"][what]]
        if others:
            revisions = ", ".join(f"{part} (git {kept[part]['revision']})" for part in others)
            text += f"\n\n**Not one run:** measured with different {what}: {revisions}; `make bench` measures it again."
    return text


def _data(preparation: dict[str, Any] | None, name: str) -> str:
    record = (preparation or {"records": {}})["records"].get("prepare/0")
    if record is None:
        return name
    return (
        f"{name}: {record['train']:,} training and {record['test']:,} test images of {record['classes']} classes; "
        f"`prepare` took {record['seconds']:.1f} s, its imports {record['imports']:.1f} s"
    )
