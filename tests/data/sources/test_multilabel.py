"""A table as people write them, and as they get it wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miyagi.data.source import Raw
from miyagi.data.sources import multilabel
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset

TABLE = """file,labels,split
a.png,cat;dog,train
b.png,dog,train
sub/c.png, dog ; bird ;,test
d.png,cat,val
e.png,,train
"""


def put(root: Path, table: str = TABLE, encoding: str = "utf-8") -> None:
    (root / "pics" / "sub").mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(("a.png", "b.png", "sub/c.png", "d.png", "e.png")):
        Image.new("RGB", (12, 10), (i, 0, 0)).save(root / "pics" / name)
    (root / "pics" / "labels.csv").write_text(table, encoding=encoding)


def load(root: Path) -> Raw:
    return multilabel.load(Dataset(source="multilabel", path="pics"), Paths(root))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_labels_and_splits(tmp_path: Path, encoding: str) -> None:
    put(tmp_path, encoding=encoding)
    raw = load(tmp_path)
    assert raw.classes == ["bird", "cat", "dog"]
    assert raw.test is not None and raw.val is not None
    parts = {"train": raw.train, "val": raw.val, "test": raw.test}
    assert {k: None if v.several is None else v.several.tolist() for k, v in parts.items()} == {
        "train": [[0, 1, 1], [0, 0, 1]], "val": [[0, 1, 0]], "test": [[1, 0, 1]],
    }  # fmt: skip
    assert {k: v.labels.tolist() for k, v in parts.items()} == {"train": [1, 2], "val": [1], "test": [0]}  # the rarest
    assert raw.test.read(0)[0, 0].tolist() == [2, 0, 0]
    assert raw.notes == ["1 images have no label and were left out"]
    assert raw.skipped == []


def test_without_splits(tmp_path: Path) -> None:
    put(tmp_path, "labels,file\ncat;dog,a.png\ndog,b.png\n")
    raw = load(tmp_path)
    assert (raw.test, raw.val, raw.train.labels.tolist()) == (None, None, [0, 1])


def test_the_digest_is_of_labels_and_bytes(tmp_path: Path) -> None:
    put(tmp_path)
    digests = [load(tmp_path).digest]
    put(tmp_path, TABLE.replace("b.png,dog", "b.png,cat"))
    digests.append(load(tmp_path).digest)
    Image.new("RGB", (12, 10)).save(tmp_path / "pics" / "b.png")
    digests.append(load(tmp_path).digest)
    assert len(set(digests)) == 3
    put(tmp_path)
    assert load(tmp_path).digest == digests[0]


def test_a_damaged_or_missing_image_is_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "pics" / "b.png").write_bytes(b"gone")
    raw = load(tmp_path)
    assert raw.skipped == [{"file": "b.png", "reason": "not an image that Pillow knows"}]
    assert raw.train.several is not None and raw.train.several.tolist() == [[0, 1, 1]]
    (tmp_path / "pics" / "d.png").unlink()
    with pytest.raises(UserError, match=r"no readable image of val \(e\.g\. b\.png: not an image"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "no column 'file'"),
        ("file,label\na.png,cat\n", "no column 'labels'; it has the columns file, labels and"),
        (TABLE.replace(",val", ",valid"), r"labels\.csv line 5: split 'valid' is none of train, val, test"),
        (TABLE.replace("b.png", "../b.png"), r"line 3: file '\.\./b\.png' must lie in the folder"),
        (TABLE.replace("b.png", "/etc/b.png"), r"line 3: file '/etc/b\.png' must lie in the folder"),
        (TABLE.replace("b.png", "a.png"), r"line 3: 'a\.png' stands there twice"),
        ("file,labels\na.png,cat\n", r"1 class\(es\): an evaluation needs at least two"),
        (TABLE.replace(",train", ",test"), "no row with labels has the split train"),
    ],
)
def test_a_table_that_cannot_be(tmp_path: Path, table: str, message: str) -> None:
    put(tmp_path, table)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"multilabel: cannot read .*labels\.csv: No such file"):
        load(tmp_path)


def test_names_stay_text(tmp_path: Path) -> None:
    put(tmp_path, "file,labels\na.png,<b>;Žluťoučký 猫\nb.png,$(x)\n")
    assert load(tmp_path).classes == sorted(["<b>", "Žluťoučký 猫", "$(x)"])
    assert np.array_equal(load(tmp_path).train.labels, [1, 0])
