"""(b) Pretraining end to end, and (c) the same training on random tensors: samples a second."""

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.ratios import Spread, by_pairs, spread
from benchmarks.results import Record, Records, by_round
from benchmarks.session import Session
from benchmarks.tables import Section, at_least, number, shown
from benchmarks.trials import arguments, fastest, sentence

PART = "pretraining"
SYSTEMS = {
    "ours_compute": "Miyagi, compute only",
    "ours": "Miyagi, end to end",
    "lightly_compute": "lightly, compute only",
    "lightly": "lightly, end to end",
    "lightly_kept": "lightly, compute only, glibc keeping freed memory as it does under Miyagi",
}
SIDES = (512, 1024, 2048, 3072)


def ours(root: str, entry: dict[str, Any], width: int, threads: int) -> Record:
    """A training without a monitor; the first epoch warms up."""
    start = time.perf_counter()
    from benchmarks import ours as side

    imports = time.perf_counter() - start
    trained = side.trainer(root, entry, width=width, threads=threads, seed=0)
    return {"imports": imports, **timed(trained.loader.images, _epochs(trained))}


def in_turn(root: str, entry: dict[str, Any], width: int, threads: int, images: int) -> Record:
    """Ours with data and ours on noise, epoch by epoch in turn; the first epoch of each warms up.

    Returns:
        `ours` and `ours_compute`: the record of each. `flop`: of one training sample.
    """
    start = time.perf_counter()
    from benchmarks import ours as side

    imports = time.perf_counter() - start
    given: dict[str, Any] = {"width": width, "threads": threads, "seed": 0, "images": images}
    trained = side.trainer(root, entry, kind=side.InTurn, **given)
    epochs: dict[str, list[float]] = {"ours": [], "ours_compute": []}
    for epoch, seconds in enumerate(_epochs(trained)):
        epochs["ours_compute" if side.InTurn.on_noise(epoch) else "ours"].append(seconds)
    # Of plain layers: a compiled network's torch cannot see, and what fusing adds is not the task's.
    plain = side.trainer(root, entry | {"runtime": {}}, fused=False, kind=side.OnNoise, **given)
    rates = {system: timed(trained.loader.images, took) for system, took in epochs.items()}
    return {"imports": imports, "flop": flop(plain), **rates}


def _epochs(trained: Any) -> list[float]:
    """Seconds of each epoch of `Trainer.fit`; its checkpoint is part of its time."""
    marks = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        trained.fit(Path(folder), None, lambda row, rate: marks.append(time.perf_counter()))
    return [later - earlier for earlier, later in pairwise(marks)]


def flop(trained: Any) -> float:
    """Floating-point operations of one training sample: forward and backward pass, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    trained.method.train()
    batch = next(iter(trained.batches(0)))
    with FlopCounterMode(display=False) as counter:
        trained.method(batch, 0.0)["loss"].backward()
    return float(counter.get_total_flops()) / len(batch)


def lightly(
    train: str,
    recipe: str,
    size: int,
    batch: int,
    width: int,
    threads: int,
    workers: int,
    epochs: int,
    optimisation: dict[str, float],
    images: int | None = None,
    compute_only: bool = False,
    keep_memory: bool = False,
) -> Record:
    """The loop of lightly's example; the first epoch warms up."""
    start = time.perf_counter()
    import torch

    from benchmarks import peers
    from miyagi.train.setup import keep_memory as keep

    torch.set_num_threads(threads)
    if keep_memory:
        keep()
    view = peers.recipe(recipe)
    batches: Any = peers.loader("lightly", train, view, size=size, batch=batch, workers=workers, images=images)
    model = peers.model(0, width, size)
    imports = time.perf_counter() - start
    n, steps = batches.batch_size, len(batches)
    if compute_only:
        noise = torch.rand(n, 3, size, size), torch.rand(n, 3, size, size)
        batches = [(noise,)] * steps
    took = list(peers.train(model, batches, epochs, **optimisation))
    return {"imports": imports, "workers": workers, "threads": threads, **timed(steps * n, took)}


def timed(images: int, epochs: list[float]) -> Record:
    """The record of a training whose first epoch warmed up."""
    seconds = sum(epochs[1:])
    return {
        "warm_up": epochs[0],
        "images": images * (len(epochs) - 1),
        "seconds": seconds,
        "rate": images * (len(epochs) - 1) / seconds,
    }


def peak(threads: int, sides: list[int], least: float = 0.3) -> Record:
    """The fastest product of two square fp32 matrices, in FLOP/s (2 n^3 each)."""
    import torch

    torch.set_num_threads(threads)
    rates = {}
    for side in sides:
        a, b = torch.rand(side, side), torch.rand(side, side)
        out = a @ b
        best = 0.0
        for _ in range(3):
            products, start, seconds = 0, time.perf_counter(), 0.0
            while seconds < least:
                torch.mm(a, b, out=out)
                products += 1
                seconds = time.perf_counter() - start
            best = max(best, 2 * side**3 * products / seconds)
        rates[str(side)] = best
    return {"rate": max(rates.values()), "sides": rates}


def run(session: Session) -> None:
    """Rounds of the matrix products, ours and lightly's, one after the other."""
    settings = session.settings
    chosen = fastest(session)
    session.results.begin(
        PART, session.common() | {"recipe": settings.data_path.recipes[0], "repeats": settings.repeats}
    )
    entry = settings.entry(settings.data_path.recipes[0])
    theirs = arguments(session, epochs=1 + settings.pretraining.epochs) | {"images": settings.rate_images}
    entry["pretrain"]["epochs"] = 2 * (1 + settings.pretraining.turns)
    # Nothing decodes beside it, so all threads compute.
    compute = theirs | {"workers": 0, "threads": settings.threads, "compute_only": True}
    calls: dict[str, dict[str, Any]] = {
        "peak": {"target": "peak", "threads": settings.threads, "sides": list(SIDES)},
        "ours": {"target": "in_turn", **session.ours(), "entry": entry, "images": settings.rate_images},
        "lightly_compute": {"target": "lightly", **compute},
        "lightly": {"target": "lightly", **theirs, **chosen},
        "lightly_kept": {"target": "lightly", **compute, "keep_memory": True},
    }  # fmt: skip
    for turn in range(settings.repeats):
        for system, call in calls.items():
            given = {name: value for name, value in call.items() if name != "target"}
            session.once(PART, f"{system}/{turn}", f"{__name__}:{call['target']}", **given)


def section(records: Records, settings: dict[str, Any], tried: Records) -> Section:
    """Samples/s of both sides, end to end and on random tensors.

    Args:
        records: of this part.
        settings: as they were kept with the records.
        tried: the trials of `fastest`.
    """
    records = _apart(records)
    rates = {system: by_round(records, system, lambda record: record["rate"]) for system in (*SYSTEMS, "peak")}
    flops = by_round(records, "ours_compute", lambda record: record["flop"])
    reached = {name: rate * flops[name] for name, rate in rates["ours_compute"].items() if name in flops}
    efficiency = {
        "ours": by_pairs(rates["ours"], rates["ours_compute"]),
        "lightly": by_pairs(rates["lightly"], rates["lightly_compute"]),
    }
    of_peak = percent(by_pairs(reached, rates["peak"]))
    rows = []
    for system, name in SYSTEMS.items():
        own = [record for key, record in records.items() if key.startswith(f"{system}/")]
        rows.append([
            name, shown(spread(rates[system].values())), shown(percent(efficiency.get(system)), "%"),
            shown(spread(record["imports"] for record in own)), shown(spread(record["warm_up"] for record in own)),
        ])  # fmt: skip
    peak_rate, work = spread(rates["peak"].values()), spread(flops.values())
    notes = [sentence(tried, ("lightly",))]
    if peak_rate and work:
        notes.append(
            f"The fastest fp32 matrix product of this run: {shown(scaled(peak_rate, 1e-9), 'GFLOP/s')}. A training "
            f"sample (two views, forward and backward) takes {number(work.median / 1e6)} MFLOP by torch's own count: "
            f"our compute-only rate is {shown(of_peak, '%')} of that peak."
        )
    return Section(
        "(b) Pretraining end to end, (c) compute only",
        f"SimCLR with conv4 (width {settings['width']}), {settings['batch']} images a batch, recipe "
        f"{settings['recipe']}, SGD, torch with {settings['threads']} threads, monitors off; one epoch of "
        f"{settings['rate_images']:,} images warms up, of lightly {settings['pretraining']['epochs']} more are timed, "
        f"of ours {settings['pretraining']['turns']}, our checkpoints included. Compute only: the same loop on one "
        "batch of random tensors. In a training of ours, epochs end to end and compute only take turns, since the "
        "speed of a machine drifts from one minute to the next.",
        ["system", "samples/s", "end to end / compute only", "imports, s", "first epoch, s"],
        rows,
        [
            at_least("end to end: ours / lightly", 2, by_pairs(rates["ours"], rates["lightly"])),
            at_least("ours: end to end / compute only", 92, percent(efficiency["ours"]), "%"),
            at_least("compute only: ours / lightly", 1.25, by_pairs(rates["ours_compute"], rates["lightly_compute"])),
            at_least("ours: compute only / matrix-product peak", 70, of_peak, "%"),
        ],
        notes,
    )


def _apart(records: Records) -> Records:
    """Of each record of `in_turn`, one of each system; the others as they are."""
    found: Records = {}
    for key, record in records.items():
        system, _, turn = key.partition("/")
        each = {name: value for name, value in record.items() if name in SYSTEMS}
        rest = {name: value for name, value in record.items() if name not in each}
        found |= {f"{name}/{turn}": rest | own for name, own in each.items()} if system == "ours" else {key: record}
    return found


def scaled(found: Spread, factor: float) -> Spread:
    """Every number times `factor` > 0."""
    return Spread(found.median * factor, found.low * factor, found.high * factor, found.n)


def percent(found: Spread | None) -> Spread | None:
    """A ratio in percent."""
    return None if found is None else scaled(found, 100)
