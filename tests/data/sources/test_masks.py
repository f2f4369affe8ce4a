"""Pictures and their maps side by side, as people lay them out and as they get them wrong."""

import numpy as np
import pytest
from PIL import Image

from miyagi.data.scene import IGNORED
from miyagi.data.sources import masks, normals
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import AnnotatedDataset


def put(folder, name, labels, size=(6, 8), suffix="png"):
    """A picture and its mask in one file each; `folder` has a place for {images,masks}."""
    for place, pixels in (("images", np.full((*size, 3), 90, np.uint8)), ("masks", labels)):
        if pixels is not None:
            file = folder / place / f"{name}.{'jpg' if place == 'images' else suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)


def mask(*values, size=(6, 8)):
    found = np.full(size, values[0], np.uint8)
    for i, value in enumerate(values):
        found[i] = value
    return found


@pytest.fixture
def load(tmp_path):
    def run(source=masks, **settings):
        name = source.__name__.rpartition(".")[2]
        return source.load(AnnotatedDataset(source=name, path="pics", **settings), Paths(tmp_path))

    (tmp_path / "pics").mkdir()
    return run


@pytest.fixture
def pics(tmp_path):
    return tmp_path / "pics"


def test_labels_become_positions_and_the_ignored_one_255(load, pics):
    put(pics, "a", mask(0, 50, 100))
    put(pics, "b", mask(100, 255))
    put(pics, "sub/c", mask(0, 50))
    found = load()
    assert found.kinds == {"masks": ["0", "50", "100"]}
    assert (found.train.total, found.val, found.test, found.skipped) == (3, None, None, [])
    assert found.train.read(0).mask[:3, 0].tolist() == [0, 1, 2]
    assert found.train.read(1).mask[:2, 0].tolist() == [2, IGNORED]
    assert load(ignore=50).kinds == {"masks": ["0", "100", "255"]}


def test_names_and_splits_of_their_own(load, pics):
    for split in ("train", "test"):
        for place in ("images", "masks"):
            (pics / place / split).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(pics / "images" / split / "a.png")
        Image.fromarray(mask(0, 1)).save(pics / "masks" / split / "a.png")
    (pics / "classes.txt").write_text("road\ncar\ntree\n")
    found = load()
    assert found.kinds == {"masks": ["road", "car", "tree"]}
    assert (found.train.total, found.val, found.test.total) == (1, None, 1)


def test_camvid_s_folders(load, pics):
    for split, value in (("train", 1), ("val", 1), ("test", 11)):
        (pics / split).mkdir()
        (pics / f"{split}annot").mkdir()
        Image.new("RGB", (8, 6)).save(pics / split / "a.jpg")
        Image.fromarray(mask(0, value)).save(pics / f"{split}annot" / "a.png")
    found = load(ignore=11)
    assert [found.train.total, found.val.total, found.test.total] == [1, 1, 1]
    assert found.test.read(0).mask[1, 0] == IGNORED


def test_palette_masks_are_read_by_their_numbers(load, pics):
    put(pics, "a", mask(0, 3))
    image = Image.fromarray(mask(0, 3)).convert("P")
    image.putdata(mask(0, 3).ravel().tolist())
    image.putpalette([200, 10, 10] * 256)
    image.save(pics / "masks" / "a.png")
    assert load().kinds == {"masks": ["0", "3"]}


def test_an_unknown_label_names_file_and_way_out(load, pics):
    put(pics, "a", mask(0, 1, 23))
    (pics / "classes.txt").write_text("road\ncar\n")
    with pytest.raises(UserError) as error:
        load()
    assert str(error.value) == (
        f"{pics}/masks/a.png: label 23 is not in {pics}/classes.txt; name it there, or give it to `ignore` (now 255)"
    )
    assert load(ignore=23).train.read(0).mask[2, 0] == IGNORED


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, "it has no mask in masks"),
        (mask(0, 1, size=(8, 6)), "its annotation has 6 x 8 pixels, the picture 8 x 6"),
        (np.zeros((6, 8, 3), np.uint8), "bad.png: a mask has one label a pixel (grey or palette), this one is RGB"),
    ],
)
def test_a_mask_that_cannot_be_leaves_its_picture_out(load, pics, labels, reason):
    put(pics, "a", mask(0, 1))
    put(pics, "bad", labels)
    found = load()
    assert found.skipped == [{"file": "images/bad.jpg", "reason": reason}]
    assert found.train.total == 1


def test_a_damaged_mask_and_a_damaged_picture(load, pics):
    for name in "abc":
        put(pics, name, mask(0, 1))
    (pics / "masks" / "b.png").write_bytes(b"not a png")
    (pics / "images" / "c.jpg").write_bytes(b"not a jpeg")
    assert {entry["file"]: entry["reason"] for entry in load().skipped} == {
        "images/b.jpg": "b.png: not an image that Pillow can read",
        "images/c.jpg": "not an image that Pillow knows",
    }


def test_the_digest_is_of_masks_too(load, pics):
    put(pics, "a", mask(0, 1))
    first = load().digest
    put(pics, "a", mask(0, 1, 1))
    assert load().digest != first


def test_other_folders_and_one_label_alone_are_one_line(load, pics):
    with pytest.raises(UserError, match=r"masks: .*pics has neither images/ and masks/ nor train/ and trainannot/"):
        load()
    put(pics, "a", mask(4))
    with pytest.raises(UserError, match=r"masks: 1 label\(s\) in .*; segmentation takes 2 to 255"):
        load()


def test_normals(load, pics):
    put(pics, "a", None)
    put(pics, "b", None)
    (pics / "normals").mkdir()
    Image.new("RGB", (8, 6), (128, 128, 255)).save(pics / "normals" / "a.png")
    Image.new("L", (8, 6)).save(pics / "normals" / "b.png")
    found = load(normals)
    assert found.kinds == {"normals": []}
    assert found.train.read(0).normals[0, 0].tolist() == [128, 128, 255]
    (skipped,) = found.skipped
    assert skipped["reason"] == "b.png: a map of normals is an RGB image with 8 bits a channel, this one is L"
