import json

import pytest

from miyagi.data.batch import DataInfo
from miyagi.data.manifest import data_digest, data_info, read_manifest
from miyagi.errors import UserError

MANIFEST = {
    "classes": ["cat", "dog"],
    "counts": {"train": {"total": 5, "per_class": [2, 3]}, "val": {"total": 1}, "test": {"total": 1}},
    "size": 16,
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
    "color": False,
    "betons": {"train": "aa", "val": "bb", "test": "cc"},
}


def test_read_back(tmp_path):
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(MANIFEST))
    assert read_manifest(file) == MANIFEST
    assert data_info(read_manifest(file)) == DataInfo(5, 2, 16, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), color=False)


@pytest.mark.parametrize("content", [None, b"", b'{"classes": [', b"\xff\xfe\x00"])
def test_missing_or_broken_names_the_file(tmp_path, content):
    file = tmp_path / "manifest.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json: .*run `dvc repro`"):
        read_manifest(file)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_digest_is_that_of_all_betons(split):
    other = MANIFEST | {"betons": MANIFEST["betons"] | {split: "dd"}}
    assert data_digest(other) != data_digest(MANIFEST)
    assert data_digest(MANIFEST | {"size": 99, "notes": ["x"]}) == data_digest(MANIFEST)
