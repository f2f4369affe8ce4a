"""(g) Many stages at once: `make flow` beside `dvc repro`, and what it adds to each stage."""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.project import Project, shipped
from benchmarks.ratios import by_pairs, spread
from benchmarks.results import Record, Records, by_round
from benchmarks.session import Session
from benchmarks.stages import cut
from benchmarks.tables import Section, Target, shown
from miyagi.params import merge

PART = "orchestration"
NAMES = {"dvc": "dvc repro", "flow": "make flow"}
SIDES = tuple(NAMES)
LIMIT = 0.7
"""Wall time of `make flow` may be at most so much of `dvc repro`'s, where there are trainings to run side by side."""


def whole(side: str, experiments: list[str], changes: dict[str, Any], targets: list[str]) -> Record:
    """Run the shipped DAG with `changes` once, its data prepared before, by `side`: "dvc" or "flow".

    Returns:
        seconds: wall time, for flow without its server's start; server: seconds of that start; stages: how many ran.
    """
    params = shipped()
    params["experiments"] = {name: params["experiments"][name] for name in experiments}
    with tempfile.TemporaryDirectory() as folder:
        made = Project(Path(folder), merge(params, changes))
        _warm(made)
        return timed(made, side, targets)


def tiny(side: str, experiments: list[str], targets: list[str], repeats: int) -> Record:
    """Run a DAG of seconds by `side`, one stage after the other, then with nothing to do.

    Returns:
        seconds, server: of each of `repeats` runs with --force, as in `whole`; noop: seconds of each idle run; stages:
        that each ran.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Project(Path(folder), cut(shipped(), experiments))
        _warm(made)
        timed(made, side, targets)  # every module of every stage is compiled
        alone = ["--force", *(["--jobs", "1"] if side == "flow" else []), *targets]
        runs = [timed(made, side, alone) for _ in range(repeats)]
        noop = [made.run(*_command(side), *targets)[0] for _ in range(repeats)]
        return {
            "seconds": [run["seconds"] for run in runs],
            "server": [run["server"] for run in runs],
            "noop": noop,
            "stages": runs[-1]["stages"],
        }


def timed(made: Project, side: str, arguments: list[str]) -> Record:
    """One run by `side`; where a Prefect server was started for it, its start is taken out and told apart."""
    wall, said = made.run(*_command(side), *arguments)
    found = re.search(r"^Prefect server: ([\d.]+) s to start", said, re.MULTILINE)
    server = float(found.group(1)) if found else 0.0
    done = r"^\S+: done after" if side == "flow" else r"^Running stage '"
    return {"seconds": wall - server, "server": server, "stages": len(re.findall(done, said, re.MULTILINE))}


def _warm(made: Project) -> None:
    made.run(sys.executable, "-m", "compileall", "-q", "ssl", "flows")
    made.run("dvc", "repro", "prepare")


def _command(side: str) -> list[str]:
    return ["dvc", "repro"] if side == "dvc" else [sys.executable, "-m", "flows.pipeline"]


def run(session: Session) -> None:
    """Both sides in turn, each first in every other round; then what a stage costs more."""
    own = session.settings.orchestration
    session.results.begin(PART, own.model_dump(mode="json"))
    for turn in range(own.rounds):
        for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
            session.once(
                PART, f"{side}/{turn}", f"{__name__}:whole", side=side, experiments=own.experiments,
                changes=own.changes, targets=own.targets,
            )  # fmt: skip
    for side in SIDES:
        session.once(
            PART, f"tiny/{side}/0", f"{__name__}:tiny", side=side, experiments=own.tiny.experiments,
            targets=own.tiny.targets, repeats=own.tiny.repeats,
        )  # fmt: skip


def section(records: Records, settings: dict[str, Any]) -> Section:
    """Wall times of both sides, and the cost of a stage."""
    seconds = {side: by_round(records, side, lambda record: record["seconds"]) for side in SIDES}
    servers = spread(record["server"] for key, record in records.items() if key.startswith("flow/"))
    ratio = by_pairs(seconds["flow"], seconds["dvc"])
    rows = [
        [f"`{NAMES[side]}`, {_count(records, f'{side}/0')} stages", shown(spread(seconds[side].values())),
         shown(servers) if side == "flow" else "-"]
        for side in SIDES
    ]  # fmt: skip
    notes = []
    found = {side: records.get(f"tiny/{side}/0") for side in SIDES}
    for side, record in found.items():
        if record:
            rows += [
                [f"`{NAMES[side]}`, {record['stages']} tiny stages, one at a time", shown(spread(record["seconds"])),
                 shown(spread(record["server"])) if side == "flow" else "-"],
                [f"`{NAMES[side]}`, nothing to do", shown(spread(record["noop"])), "-"],
            ]  # fmt: skip
    dvc, flow = found["dvc"], found["flow"]
    if dvc and flow:
        more = [ours - theirs for ours, theirs in zip(flow["seconds"], dvc["seconds"], strict=True)]
        notes.append(
            f"What `make flow` adds where stages run one at a time: {shown(spread(more), 's')} in all, "
            f"{shown(spread(one / flow['stages'] for one in more), 's')} a stage, and the start of the server."
        )
    stages = f"stages {', '.join(settings['targets'])}" if settings["targets"] else "all stages"
    return Section(
        "(g) Many stages at once",
        f"The shipped params.yaml with the experiments {', '.join(settings['experiments'])} and "
        f"`{settings['changes']}`, {stages} but `prepare`, which ran before; each side in a new project, each first in "
        "every other round. A Prefect server is started for each `make flow` and ended with it; its start is not in "
        "the wall time. Tiny: as in (e), with `--force`.",
        ["what", "wall, s", "start of the server, s"],
        rows,
        [Target("wall time, trainings side by side: make flow / dvc repro", f"<= {LIMIT:g} x", ratio,
                None if ratio is None else ratio.median <= LIMIT)],
        notes,
    )  # fmt: skip


def _count(records: Records, key: str) -> str:
    return str(records[key]["stages"]) if key in records else "-"
