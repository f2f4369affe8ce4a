import numpy as np
import pytest

from miyagi.data.annotations import Annotations, write_annotations
from miyagi.data.scene import Scene
from miyagi.errors import UserError


def scenes():
    rng = np.random.default_rng(0)
    for height, width, objects in ((4, 6, 2), (5, 3, 0), (2, 8, 3)):
        yield Scene(
            rng.integers(0, 256, (height, width, 3), np.uint8),
            rng.random((objects, 4), np.float32), rng.integers(0, 9, objects), rng.random(objects) < 0.5,
            rng.integers(0, 5, (height, width), np.uint8), rng.integers(0, 256, (height, width, 3), np.uint8),
        )  # fmt: skip


def test_what_was_written_is_read_picture_by_picture(tmp_path):
    write_annotations(tmp_path / "a", scenes(), ["boxes", "masks", "normals"])
    found = Annotations(tmp_path / "a")
    assert (len(found), found.kinds) == (3, ["boxes", "masks", "normals"])
    for i, scene in enumerate(scenes()):
        assert found.sizes[i].tolist() == list(scene.image.shape[:2])
        for mine, own in zip(found.objects(i), (scene.boxes, scene.labels, scene.difficult), strict=True):
            assert np.array_equal(mine, own) and mine.dtype == own.dtype
        assert np.array_equal(found.map("masks", i), scene.mask)
        assert np.array_equal(found.map("normals", i), scene.normals)


def test_equal_annotations_give_equal_bytes(tmp_path):
    for name in "ab":
        write_annotations(tmp_path / name, scenes(), ["masks", "boxes"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert Annotations(tmp_path / "a").kinds == ["boxes", "masks"]


@pytest.mark.parametrize("content", [None, b"", b"nonsense that is no safetensors file"])
def test_a_missing_or_broken_file_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*a: .*run `dvc repro`") as error:
        Annotations(tmp_path / "a")
    assert "\n" not in str(error.value)
