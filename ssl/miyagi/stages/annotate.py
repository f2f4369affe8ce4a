"""annotate@D: pictures with boxes, masks or normals -> betons, their annotations and a manifest.

They lie where `prepare` puts a data set of labelled images, with one file of annotations a split more. The manifest is
written last, so where it lies, the files beside it are whole.
"""

import sys
from collections.abc import Iterator

import numpy as np

from miyagi.data.annotations import write_annotations
from miyagi.data.betons import ASPECT, Beton, write_beton
from miyagi.data.scene import Annotated, Scene, Scenes, shrunk
from miyagi.data.splits import split
from miyagi.data.statistics import statistics
from miyagi.errors import UserError
from miyagi.files import all_or_none, file_digest, write_json
from miyagi.paths import SPLITS, Paths
from miyagi.registry import SOURCES
from miyagi.settings import AnnotatedDataset


class _Chosen:
    """The pictures of one split as they are stored, read when they are asked for."""

    def __init__(self, scenes: Scenes, positions: np.ndarray, shorter: int) -> None:
        self.scenes, self.positions, self.shorter = scenes, positions, shorter

    def __len__(self) -> int:
        return len(self.positions)

    def scene(self, position: int) -> Scene:
        return shrunk(self.scenes.read(int(self.positions[position])), self.shorter)

    def __getitem__(self, position: int, /) -> np.ndarray:
        return self.scene(position).image

    def __iter__(self) -> Iterator[Scene]:
        return (self.scene(position) for position in range(len(self)))


def run(key: str, settings: AnnotatedDataset, paths: Paths) -> dict[str, float]:
    """Prepare `dense.datasets.KEY`.

    Returns:
        What tracking shows: pictures of each split, files that were left out.

    Raises:
        UserError: the source has no usable pictures, the splits are not possible, or nothing can be written.
    """
    SOURCES.check(settings.source, f"dense.datasets.{key}.source")
    raw: Annotated = SOURCES.load(settings.source).load(settings, paths)
    for line in raw.notes:
        print(f"miyagi: note: dense.datasets.{key}: {line}", file=sys.stderr)
    if raw.skipped:
        first = f"{raw.skipped[0]['file']!r} ({raw.skipped[0]['reason']})"
        left = f"{len(raw.skipped)} picture(s) left out, the first: {first}; the manifest lists all"
        print(f"miyagi: warning: dense.datasets.{key}: {left}", file=sys.stderr)
    parts = _parts(key, settings, raw)
    kinds = sorted(raw.kinds)
    files = {name: [paths.beton(key, name), paths.annotations(key, name)] for name in SPLITS}
    with all_or_none([*(file for own in files.values() for file in own), paths.manifest(key)]):
        for name, chosen in parts.items():
            beton, annotations = files[name]
            labels = np.zeros(len(chosen), np.int64)
            largest = 3 * ASPECT * settings.shorter_side**2
            write_beton(beton, chosen, labels, largest=largest, jpeg_quality=settings.jpeg_quality)
            write_annotations(annotations, chosen, kinds)
        manifest = {
            "dataset": key,
            "source": settings.source,
            "kinds": raw.kinds,
            "classes": max(raw.kinds.values(), key=len),
            "size": settings.shorter_side,
            **statistics(Beton(paths.beton(key, "train"))),
            "counts": {name: {"total": len(chosen)} for name, chosen in parts.items()},
            "source_digest": raw.digest,
            "betons": {name: file_digest(paths.beton(key, name)) for name in SPLITS},
            "annotations": {name: file_digest(paths.annotations(key, name)) for name in SPLITS},
            "skipped": raw.skipped,
            # The path is left out: it may be absolute, and the pictures themselves are named by source_digest.
            "settings": settings.model_dump(mode="json", exclude={"path"}),
            "notes": raw.notes,
        }
        write_json(paths.manifest(key), manifest)
    return {
        **{f"{name}_images": float(len(chosen)) for name, chosen in parts.items()},
        "skipped_files": float(len(raw.skipped)),
    }


def _parts(key: str, settings: AnnotatedDataset, raw: Annotated) -> dict[str, _Chosen]:
    """The pictures of each split: shared out as labelled images are, all being of one class."""
    for name, scenes in (("train", raw.train), ("val", raw.val), ("test", raw.test)):
        if scenes is not None and not scenes.total:
            first = f" (e.g. {raw.skipped[0]['file']}: {raw.skipped[0]['reason']})" if raw.skipped else ""
            raise UserError(f"dense.datasets.{key}: no usable picture for {name} in {settings.path}{first}")
    labels = [None if scenes is None else np.zeros(scenes.total, np.int64) for scenes in (raw.test, raw.val)]
    chosen = split(key, settings, ["picture"], np.zeros(raw.train.total, np.int64), *labels)
    own = {"train": raw.train, "val": raw.val or raw.train, "test": raw.test or raw.train}
    return {name: _Chosen(own[name], getattr(chosen, name), settings.shorter_side) for name in SPLITS}
