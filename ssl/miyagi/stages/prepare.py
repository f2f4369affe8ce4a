"""prepare@D: raw images -> `data/betons/D/{train,val,test}.beton` and `manifest.json`.

The manifest holds no time, host or absolute path: equal images and settings give equal bytes. It is written last, so
where it lies, the betons beside it are whole.
"""

import sys
from collections.abc import Iterator

import numpy as np

from miyagi.data.betons import ASPECT, Beton, fit, square, write_beton
from miyagi.data.source import Images, Raw
from miyagi.data.splits import Splits, split
from miyagi.data.statistics import statistics
from miyagi.files import all_or_none, file_digest, write_json
from miyagi.paths import SPLITS, Paths
from miyagi.registry import SOURCES
from miyagi.settings import Dataset


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
    with all_or_none([*(paths.beton(key, name) for name in SPLITS), paths.manifest(key)]):
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
            "settings": settings.model_dump(mode="json", exclude={"path", "group"}),
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


def _parts(raw: Raw, chosen: Splits) -> Iterator[tuple[str, Images, np.ndarray]]:
    yield "train", raw.train, chosen.train
    yield "val", raw.val or raw.train, chosen.val
    yield "test", raw.test or raw.train, chosen.test
