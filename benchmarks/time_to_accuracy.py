"""(d) How long until the kNN accuracy that lightly has after its epochs: same data, same encoder, each side's recipe.

The clock counts training alone: not the imports, not the compiling, not the evaluation after each epoch.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from scipy import stats

from benchmarks.ratios import Spread, by_pairs, crossing, spread
from benchmarks.results import Record, Records, by_round
from benchmarks.session import Session
from benchmarks.tables import Section, Target, at_least, number, shown
from benchmarks.trials import arguments, fastest

PART = "time_to_accuracy"


def ours(root: str, entry: dict[str, Any], width: int, threads: int, seed: int, k: int, temperature: float) -> Record:
    """Train by our recipe; `curve` holds (training seconds, accuracy in percent), first of the untrained encoder."""
    import tempfile
    from pathlib import Path

    start = time.perf_counter()
    from benchmarks import ours as side
    from miyagi.train.loop import Row

    imports = time.perf_counter() - start
    trained = side.trainer(root, entry, width=width, threads=threads, seed=seed)
    jit = side.first_pass(trained) + (side.compiling(trained) if entry.get("runtime", {}).get("compile") else 0)
    curve = [(0.0, side.accuracy(trained, root, k, temperature))]
    clock = time.perf_counter()

    def evaluate(row: Row, rate: float) -> None:
        nonlocal clock
        seconds = curve[-1][0] + time.perf_counter() - clock
        curve.append((seconds, side.accuracy(trained, root, k, temperature)))
        clock = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        trained.fit(Path(folder), None, evaluate)
    return {"imports": imports, "jit": jit, "curve": curve}


def lightly(
    train: str,
    test: str,
    recipe: str,
    size: int,
    batch: int,
    width: int,
    threads: int,
    workers: int,
    epochs: int,
    optimisation: dict[str, float],
    seed: int,
    k: int,
    temperature: float,
) -> Record:
    """Train lightly's SimCLR; the same curve."""
    start = time.perf_counter()
    import torch

    from benchmarks import peers

    torch.set_num_threads(threads)
    model = peers.model(seed, width, size)
    view = peers.recipe(recipe)
    batches = peers.loader("lightly", train, view, size=size, batch=batch, workers=workers)
    imports = time.perf_counter() - start
    curve = [(0.0, peers.accuracy(model, train, test, k, temperature, workers))]
    for seconds in peers.train(model, batches, epochs, **optimisation):
        curve.append((curve[-1][0] + seconds, peers.accuracy(model, train, test, k, temperature, workers)))
    return {"imports": imports, "workers": workers, "threads": threads, "curve": curve}


def run(session: Session) -> None:
    """Each seed: lightly, then ours."""
    settings = session.settings
    own = settings.time_to_accuracy
    entry = own.ours["fashion_mnist" if session.images is None else "images"]
    chosen = fastest(session)
    described = own.model_dump(mode="json", exclude={"ours", "seeds"}) | {"entry": entry}
    session.results.begin(PART, session.common() | {"recipe": settings.data_path.recipes[0], **described})
    asked: dict[str, Any] = {"k": own.k, "temperature": own.temperature}
    test = str(session.root / "data" / "raw" / "test")
    for seed in own.seeds:
        session.once(
            PART, f"lightly/{seed}", f"{__name__}:lightly", **arguments(session, epochs=own.epochs), **chosen, **asked,
            test=test, seed=seed,
        )  # fmt: skip
        session.once(PART, f"ours/{seed}", f"{__name__}:ours", **session.ours(), **asked, entry=entry, seed=seed)


def reached(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Seconds of (ours, theirs) until the accuracy with which theirs ends, which it may have had before its end.

    None where ours never reaches it, or where an untrained encoder has it already: then nothing was learned that could
    be timed.
    """
    target = theirs[-1][1]
    seconds, other = crossing(ours, target), crossing(theirs, target)
    return (seconds, other) if seconds and other else None


def section(records: Records, settings: dict[str, Any]) -> Section:
    """Both curves of each seed against each other."""
    curves: dict[str, dict[str, list[list[float]]]] = {"ours": {}, "lightly": {}}
    for key, record in records.items():
        side, _, seed = key.partition("/")
        curves[side][seed] = record["curve"]
    rows = []
    times: dict[str, dict[str, float]] = {"ours": {}, "lightly": {}}
    for seed in sorted(curves["lightly"], key=int):
        theirs, ours_ = curves["lightly"][seed], curves["ours"].get(seed)
        found = reached(ours_, theirs) if ours_ else None
        rows.append([seed, "lightly", *_ends(theirs), number(found[1]) if found else "-", ""])
        if ours_ is None:
            continue
        if found:
            times["ours"][seed], times["lightly"][seed] = found
        rows.append([
            seed, "Miyagi", *_ends(ours_), number(found[0]) if found else _why_not(ours_, theirs),
            f"{number(found[1] / found[0])} x" if found else "-",
        ])  # fmt: skip
    complete = len(times["ours"]) == len(curves["ours"])
    ratio = by_pairs(times["lightly"], times["ours"]) if complete else None
    # A seed that never gets there is a promise that is not kept, not one that was not measured.
    target = at_least("time to lightly's accuracy: lightly / ours", 3, ratio)
    if not complete:
        target = Target(target.name, target.wanted, None, False)

    def took(side: str, name: str) -> str:
        return shown(spread(by_round(records, side, lambda record: record[name]).values()), "s")

    entry = settings["entry"]
    return Section(
        "(d) Time to lightly's accuracy",
        f"kNN (k {settings['k']}, T {settings['temperature']}) of the test images among the {settings['images']:,} "
        f"training images, after every epoch. The target of each seed is lightly's accuracy after {settings['epochs']} "
        "epochs; ours is interpolated linearly between evaluations. lightly trains by its CIFAR-10 benchmark's recipe "
        f"(SGD, lr {settings['pretraining']['lr']:g}, momentum, weight decay, cosine), Miyagi by its own: "
        f"{_described(entry)}. The clock counts training, not imports, compiling or evaluation.",
        ["seed", "system", "untrained, %", "at the end, %", "training, s", "s to lightly's accuracy", "faster by"],
        rows,
        [target, ends(*([curve[-1][1] for curve in curves[side].values()] for side in ("ours", "lightly")))],
        [
            f"Imports: Miyagi {took('ours', 'imports')}, lightly {took('lightly', 'imports')}. "
            f"Compiling and cold caches, ours: {took('ours', 'jit')} (a first pass over the data less a second one).",
        ],
    )


def ends(ours: Sequence[float], theirs: Sequence[float]) -> Target:
    """The accuracies at the end of all seeds, ours less lightly's, by Welch's t: no worse than a point."""
    name, wanted, unit = "accuracy at the end: ours - lightly", "> -1 point, whole 95 % interval", "points"
    if min(len(ours), len(theirs)) < 2:
        return Target(name, wanted, None, None, unit)
    bounds = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    difference = statistics.mean(ours) - statistics.mean(theirs)
    measured = Spread(difference, float(bounds.low), float(bounds.high), min(len(ours), len(theirs)))
    return Target(name, wanted, measured, measured.low > -1, unit)


def _why_not(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
    return "not reached" if crossing(ours, theirs[-1][1]) is None else "had untrained"


def _ends(curve: Sequence[Sequence[float]]) -> list[str]:
    return [f"{curve[0][1]:.2f}", f"{curve[-1][1]:.2f}", number(curve[-1][0])]


def _described(entry: dict[str, Any]) -> str:
    import yaml

    return f"`{yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10_000).strip()}`"
