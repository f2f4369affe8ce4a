"""Your own pictures with several labels each (as of VOC 2007 or COCO): a folder and its `FOLDER/labels.csv`.

    file,labels,split
    images/000005.jpg,chair;person,train
    images/000007.jpg,car,test

`file` is relative to the folder; labels are separated by `;`. The column `split` (train, val or test) may be missing,
and then the splits are cut off; without val rows, validation is cut from the training images.

An image counts for each of its labels where several are evaluated (the protocol svm). Where only one can be (the
supervised floor, stratified splits, the online kNN), it is the rarest one of the data set.
"""

import csv
from pathlib import Path, PurePosixPath

import numpy as np

from miyagi.data.pictures import Listing, examined, text
from miyagi.data.source import Images, Raw
from miyagi.errors import UserError
from miyagi.paths import SPLITS, Paths
from miyagi.settings import Dataset

TABLE = "labels.csv"
Row = tuple[Path, tuple[str, ...], str]
"""An image's file, its labels and its split ("" where the table has no such column)."""


def load(settings: Dataset, paths: Paths) -> Raw:
    """The pictures that `labels.csv` under `settings.path` names. The digest is of the table's rows and their files.

    Raises:
        UserError: no folder or table, a row that cannot be, fewer than two classes, a split without a readable image.
    """
    folder = paths.root / settings.path
    rows = _table(folder)
    listing = Listing()
    labelled = [row for row in rows if row[1]]
    for file, labels, split in labelled:
        listing.total.update("\0".join([file.as_posix(), split, *labels]).encode("utf-8", "surrogateescape") + b"\n")
    classes = sorted({label for _, labels, _ in labelled for label in labels})
    if len(classes) < 2:
        raise UserError(f"{folder / TABLE}: {len(classes)} class(es): an evaluation needs at least two")
    counts = {name: sum(name in labels for _, labels, _ in labelled) for name in classes}
    found = {}
    for split in sorted({split or "train" for _, _, split in labelled}, key=SPLITS.index):
        own = [(folder / file, labels) for file, labels, other in labelled if (other or "train") == split]
        kept, read = examined(folder, own, listing)
        if not kept:
            raise UserError(f"{folder / TABLE}: no readable image of {split}{listing.first}")
        several = np.array([[name in labels for name in classes] for labels in kept], dtype=np.uint8)
        rarest = [classes.index(min(labels, key=lambda name: (counts[name], name))) for labels in kept]
        found[split] = Images(np.asarray(rarest, dtype=np.int64), read, several)
    if "train" not in found:
        raise UserError(f"{folder / TABLE}: no row with labels has the split train")
    notes = []
    if len(labelled) < len(rows):
        notes.append(f"{len(rows) - len(labelled)} images have no label and were left out")
    return Raw(
        [text(name) for name in classes],
        found["train"],
        found.get("test"),
        listing.total.hexdigest(),
        listing.skipped,
        notes,
        found.get("val"),
    )


def _table(folder: Path) -> list[Row]:
    file = folder / TABLE
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"multilabel: cannot read {file}: {reason}; it has the columns file, labels and split"
        ) from error
    reader = csv.DictReader(lines, restval="")
    missing = {"file", "labels"} - set(reader.fieldnames or ())
    if missing:
        raise UserError(f"{file}: no column '{min(missing)}'; it has the columns file, labels and (if need be) split")
    rows, seen = [], set()
    for row in reader:
        where = f"{file} line {reader.line_num}"
        name = PurePosixPath(row["file"])
        if not row["file"] or name.is_absolute() or ".." in name.parts:
            raise UserError(f"{where}: file {row['file']!r} must lie in the folder, and be named relative to it")
        if name in seen:
            raise UserError(f"{where}: {row['file']!r} stands there twice; put all its labels into one row")
        seen.add(name)
        split = row.get("split", "").strip() if "split" in (reader.fieldnames or ()) else ""
        if "split" in (reader.fieldnames or ()) and split not in SPLITS:
            raise UserError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
        labels = tuple(sorted({label.strip() for label in row["labels"].split(";")} - {""}))
        rows.append((Path(name), labels, split))
    return rows
