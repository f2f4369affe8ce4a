"""(f) What grows: seconds and peak memory of preparing and pretraining with 1, 2 and 4 times the data and the batch."""

from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.ratios import Spread, by_pairs, spread
from benchmarks.results import Records, by_round
from benchmarks.session import Session
from benchmarks.tables import Section, Target, shown
from benchmarks.trials import arguments, fastest

PART = "growth"
TRAIN = "benchmarks.pretraining:ours"
LIMIT = 1.05
"""Peak memory at the most data may be so much of that at the least; noise of a few per cent is no growth."""


def run(session: Session) -> None:
    """Each number of images at one batch, then each batch at the fewest images, then lightly once for comparison."""
    settings = session.settings
    own = settings.growth
    chosen = fastest(session)
    session.results.begin(PART, session.common() | own.model_dump(mode="json"))
    least = own.images[0]

    def train(images: int, batch: int, turn: int) -> None:
        entry = settings.entry(settings.data_path.recipes[0])
        entry["pretrain"] |= {"batch_size": batch, "epochs": 1 + own.epochs}
        session.once(
            PART, f"train/{images}/{batch}/{turn}", TRAIN, watch=True, **session.ours() | {"root": str(root(images))},
            entry=entry,
        )  # fmt: skip

    def root(images: int) -> Path:
        return session.folder / "growth" / str(images)

    for images in own.images:
        if not data.exists(root(images)):
            session.results.forget(PART, f"prepare/{images}/0")
        session.once(
            PART, f"prepare/{images}/0", "benchmarks.data:build", watch=True,
            **session.data(root(images), images, min(settings.test_images, 1000)),
        )  # fmt: skip
    for turn in range(own.repeats):
        for images in own.images:
            train(images, settings.batch, turn)
        for batch in own.batches:
            if batch != settings.batch:
                train(least, batch, turn)
        session.once(
            PART, f"lightly/{least}/{settings.batch}/{turn}", "benchmarks.pretraining:lightly", watch=True,
            **arguments(session, epochs=1 + own.epochs) | {"train": data.folders(root(least))["train"]}, **chosen,
        )  # fmt: skip


def section(records: Records, settings: dict[str, Any]) -> Section:
    """A row for each number of images and each batch."""
    batch, least, most = settings["batch"], settings["images"][0], settings["images"][-1]
    anonymous = {
        key.rpartition("/")[0]: by_round(records, key.rpartition("/")[0], lambda record: record["rss_anon"])
        for key in records
    }
    rows = []
    for what in sorted(anonymous, key=_order):
        side, _, *rest = what.split("/")
        prepares = side == "prepare"
        own = [record for key, record in records.items() if key.rpartition("/")[0] == what]
        epochs = 1 if prepares else settings["epochs"]
        rows.append([
            {"prepare": "Miyagi, prepare", "train": "Miyagi, pretrain", "lightly": "lightly, pretrain"}[side],
            f"{own[0]['train' if prepares else 'images'] // epochs:,}", rest[0] if rest else "-",
            shown(spread(record["seconds"] / epochs for record in own)),
            _mib(spread(anonymous[what].values())), _mib(spread(record["max_rss"] for record in own)),
        ])  # fmt: skip

    def memory(images: int, size: int) -> dict[str, float]:
        return anonymous.get(f"train/{images}/{size}", {})

    by_data = by_pairs(memory(most, batch), memory(least, batch))
    sizes = sorted(settings["batches"])
    by_batch = by_pairs(memory(least, sizes[-1]), memory(least, sizes[0]))
    targets = [
        Target(
            f"peak memory of pretraining: {most:,} / {least:,} images", f"<= {LIMIT:g} x", by_data,
            None if by_data is None else by_data.median <= LIMIT,
        ),
        Target(
            f"peak memory of pretraining: batch {sizes[-1]} / {sizes[0]}", f"> {LIMIT:g} x", by_batch,
            None if by_batch is None else by_batch.median > LIMIT,
        ),
    ]  # fmt: skip
    return Section(
        "(f) Growth",
        "Seconds of `prepare`, and of an epoch of pretraining after the first; peak memory over the whole process. "
        "RssAnon is anonymous memory, looked at every 50 ms: the beton is mapped into memory, and its pages, which the "
        "kernel may drop at any time, count in VmHWM alone. Children do not count, so lightly's is that of its "
        "training process without workers.",
        ["what", "images", "batch", "s", "peak RssAnon, MiB", "peak VmHWM, MiB"],
        rows,
        targets,
    )


def _order(what: str) -> tuple[int, list[int]]:
    side, *numbers = what.split("/")
    return ("prepare", "train", "lightly").index(side), [int(part) for part in numbers]


def _mib(found: Spread | None) -> str:
    if found is None:
        return "-"
    return shown(Spread(found.median / 2**20, found.low / 2**20, found.high / 2**20, found.n))
