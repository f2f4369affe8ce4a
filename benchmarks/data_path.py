"""(a) The data path alone: from what lies on the disk to batches of two augmented views, in views a second."""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.ratios import by_pairs, spread
from benchmarks.results import Record, Records, by_round
from benchmarks.session import Session
from benchmarks.tables import Section, at_least, shown
from benchmarks.trials import sentence

PART = "data_path"
SYSTEMS = {
    "ours": "Miyagi: beton, whole batches augmented in torch",
    "lightly": "lightly: LightlyDataset, SimCLRTransform, DataLoader",
    "torchvision": "torchvision: ImageFolder, transforms.v2, DataLoader",
}
PEERS = ("lightly", "torchvision")


def ours(root: str, entry: dict[str, Any], width: int, threads: int, images: int, seconds: float) -> Record:
    """Our loader and augmentation, as the training loop calls them."""
    start = time.perf_counter()
    from benchmarks.ours import trainer

    imports = time.perf_counter() - start
    trained = trainer(root, entry, width=width, threads=threads, seed=0, images=images)

    def one_pass(epoch: int) -> int:
        return sum(len(view) for batch in trained.batches(epoch) for view in batch.views)

    return {"imports": imports, **repeat(one_pass, seconds)}


def peer(
    system: str,
    train: str,
    recipe: str,
    size: int,
    batch: int,
    threads: int,
    workers: int,
    seconds: float,
    images: int | None = None,
) -> Record:
    """lightly's or torchvision's loader; see peers.loader."""
    start = time.perf_counter()
    import torch

    from benchmarks import peers

    torch.set_num_threads(threads)
    view = peers.recipe(recipe)
    batches = peers.loader(system, train, view, size=size, batch=batch, workers=workers, images=images)
    imports = time.perf_counter() - start

    def one_pass(epoch: int) -> int:
        return sum(len(view) for found in batches for view in found[0])

    return {"imports": imports, "workers": workers, **repeat(one_pass, seconds)}


def repeat(one_pass: Callable[[int], int], least: float) -> Record:
    """One pass to warm up (JIT, caches, worker processes), then passes for at least `least` seconds.

    Args:
        one_pass: epoch -> views that it gave.
        least: seconds.
    """
    start = time.perf_counter()
    one_pass(0)
    warm_up = time.perf_counter() - start
    views, epoch, start = 0, 0, time.perf_counter()
    while True:
        epoch += 1
        views += one_pass(epoch)
        seconds = time.perf_counter() - start
        if seconds >= least:
            return {"warm_up": warm_up, "views": views, "seconds": seconds, "rate": views / seconds}


def run(session: Session) -> None:
    """Find each peer's fastest number of workers, then measure in rounds."""
    settings = session.settings
    session.results.begin(PART, session.common() | settings.data_path.model_dump() | {"repeats": settings.repeats})
    first = settings.data_path.recipes[0]
    workers = {}
    for system in PEERS:
        trials = {
            number: session.once(
                PART, f"trial/{system}/workers {number}", f"{__name__}:peer", **session.lightly(), system=system,
                recipe=first, threads=settings.threads, workers=number, seconds=0.0,
                images=settings.lightly.trial_images,
            )["rate"]
            for number in settings.lightly.workers
        }  # fmt: skip
        workers[system] = max(trials, key=lambda number: trials[number])
    for turn in range(settings.repeats):
        for recipe in settings.data_path.recipes:
            session.once(
                PART, f"{recipe}/ours/{turn}", f"{__name__}:ours", **session.ours(), entry=settings.entry(recipe),
                images=settings.rate_images, seconds=settings.data_path.seconds,
            )  # fmt: skip
            for system in PEERS:
                session.once(
                    PART, f"{recipe}/{system}/{turn}", f"{__name__}:peer", **session.lightly(), system=system,
                    recipe=recipe, threads=settings.threads, workers=workers[system],
                    images=settings.rate_images, seconds=settings.data_path.seconds,
                )  # fmt: skip


def section(records: Records, settings: dict[str, Any]) -> Section:
    """Rates of each recipe, and ours against the others'."""
    rows, targets = [], []
    for recipe in settings["recipes"]:
        rates = {system: by_round(records, f"{recipe}/{system}", lambda record: record["rate"]) for system in SYSTEMS}
        for system, name in SYSTEMS.items():
            own = [record for key, record in records.items() if key.startswith(f"{recipe}/{system}/")]
            ratio = None if system == "ours" else by_pairs(rates["ours"], rates[system])
            rows.append([
                recipe, name, str(own[0].get("workers", "-")) if own else "-", shown(spread(rates[system].values())),
                shown(ratio, "x"), shown(spread(record["imports"] for record in own)),
                shown(spread(record["warm_up"] for record in own)),
            ])  # fmt: skip
        targets += [
            at_least(f"data path, {recipe}: ours / lightly", 12, by_pairs(rates["ours"], rates["lightly"])),
            at_least(f"data path, {recipe}: ours / torchvision", 20, by_pairs(rates["ours"], rates["torchvision"])),
        ]
    return Section(
        "(a) Data path",
        f"Batches of {settings['batch']} images with two augmented views each, {settings['rate_images']:,} images a "
        "pass from the same files; nothing is trained. lightly and torchvision decode the image files, as their users "
        "do, ours reads the beton that `prepare` wrote of them (its time is above). The same operations with the same "
        "strengths on all sides; lightly's and torchvision's views are also normalised, which in ours the encoder "
        "does.",
        ["recipe", "system", "workers", "views/s", "ours is faster by", "imports, s", "first pass, s"],
        rows,
        targets,
        [sentence(records, PEERS)],
    )
