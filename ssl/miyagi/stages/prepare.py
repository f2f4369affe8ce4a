"""prepare@D: raw images -> `data/betons/D/{train,val,test}.beton` and `manifest.json`.

The manifest holds no time, host or absolute path: equal images and settings give equal bytes. It is written last, so
where it lies, the betons beside it are whole.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from miyagi.data.betons import ASPECT, Beton, fit, square, write_beton
from miyagi.data.source import Images, Raw
from miyagi.data.splits import Splits, split
from miyagi.errors import UserError
from miyagi.files import file_digest, write_json
from miyagi.paths import SPLITS, Paths
from miyagi.registry import SOURCES
from miyagi.settings import Dataset

CHUNK_BYTES = 64 << 20


class _Chosen:
    """The images of one split as they are stored, square or in their own shape, decoded when they are asked for."""

    def __init__(self, images: Images, positions: np.ndarray, settings: Dataset) -> None:
        self.images, self.positions, self.settings = images, positions, settings

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int, /) -> np.ndarray:
        image = self.images.read(int(self.positions[position]))
        shorter = self.settings.shorter_side
        return square(image, self.settings.size) if shorter is None else fit(image, shorter)


def run(key: str, settings: Dataset, paths: Paths) -> dict[str, float]:
    """Prepare the data set `key`.

    Returns:
        What tracking shows: images of each split, classes, files that were left out.

    Raises:
        UserError: the source has no usable images, the splits are not possible, or nothing can be written.
    """
    SOURCES.check(settings.source, f"datasets.{key}.source")
    raw: Raw = SOURCES.load(settings.source).load(settings, paths)
    if raw.skipped:
        first = raw.skipped[0]
        print(
            f"miyagi: warning: datasets.{key}: {len(raw.skipped)} unreadable image(s) left out, the first: "
            f"{first['file']!r} ({first['reason']}); the manifest lists all",
            file=sys.stderr,
        )
    own = (images.labels if images else None for images in (raw.test, raw.val))
    chosen = split(key, settings, raw.classes, raw.train.labels, *own)
    with _all_or_none([*(paths.beton(key, name) for name in SPLITS), paths.manifest(key)]):
        counts, several = {}, {}
        for name, images, positions in _parts(raw, chosen):
            labels = images.labels[positions]
            write_beton(paths.beton(key, name), _Chosen(images, positions, settings), labels, **stored(settings))
            per_class = np.bincount(labels, minlength=len(raw.classes)).tolist()
            if images.several is not None:
                chosen_labels = images.several[positions]
                several[name] = [np.flatnonzero(row).tolist() for row in chosen_labels]
                per_class = chosen_labels.sum(0, dtype=np.int64).tolist()
            counts[name] = {"total": len(labels), "per_class": per_class}
        manifest = {
            "dataset": key,
            "source": settings.source,
            "classes": raw.classes,
            "size": settings.size,
            **statistics(Beton(paths.beton(key, "train"))),
            "counts": counts,
            "source_digest": raw.digest,
            "betons": {name: file_digest(paths.beton(key, name)) for name in SPLITS},
            "skipped": raw.skipped,
            # The path is left out: it may be absolute, and the images themselves are named by source_digest.
            "settings": settings.model_dump(mode="json", exclude={"path"}),
            "notes": [*raw.notes, *chosen.notes],
            **({"several_labels": several} if several else {}),
        }
        write_json(paths.manifest(key), manifest)
    return {
        **{f"{name}_images": float(counts[name]["total"]) for name in SPLITS},
        "classes": float(len(raw.classes)),
        "skipped_files": float(len(raw.skipped)),
    }


def stored(settings: Dataset) -> dict[str, int | None]:
    """How `write_beton` is to store the images."""
    if settings.shorter_side is None:
        return {}
    return {"largest": 3 * ASPECT * settings.shorter_side**2, "jpeg_quality": settings.jpeg_quality}


def statistics(beton: Beton) -> dict[str, Any]:
    """Mean and standard deviation of each channel in [0, 1], and whether any image has a colour.

    Taken from a histogram of the stored bytes in whole numbers, so no order of summation can change a bit.
    """
    histogram = np.zeros((3, 256), dtype=np.int64)
    color = False
    for images in beton.chunks(max(1, CHUNK_BYTES // beton[0].nbytes)):
        color = color or bool((images != images[..., :1]).any())
        for channel in range(3):
            histogram[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    mean, std = [], []
    for bins in histogram.tolist():
        n = sum(bins)
        first = sum(value * count for value, count in enumerate(bins))
        second = sum(value * value * count for value, count in enumerate(bins))
        mean.append(first / n / 255)
        std.append(((n * second - first * first) / (n * n)) ** 0.5 / 255)
    return {"color": color, "mean": mean, "std": std}


def _parts(raw: Raw, chosen: Splits) -> Iterator[tuple[str, Images, np.ndarray]]:
    yield "train", raw.train, chosen.train
    yield "val", raw.val or raw.train, chosen.val
    yield "test", raw.test or raw.train, chosen.test


@contextmanager
def _all_or_none(files: list[Path]) -> Iterator[None]:
    """Remove `files` before the block, and again if it fails: a mixture of two runs would look like one."""

    def remove() -> None:
        for file in reversed(files):  # the manifest first
            file.unlink(missing_ok=True)
            # What a killed run left half written: later stages depend on the folder, whatever is in it.
            for stale in file.parent.glob(f".{file.name}.*.tmp"):
                stale.unlink(missing_ok=True)

    try:
        remove()
        yield
    except BaseException as error:
        with suppress(OSError):  # what cannot be removed could not be written either; the first error says why
            remove()
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {files[-1].parent}: {error.strerror or error}; check its permissions"
            ) from error
        raise
