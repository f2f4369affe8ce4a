"""Boxes in VOC's layout, as people write them and as they get them wrong."""

import numpy as np
import pytest
from PIL import Image

from miyagi.data.sources import voc
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import AnnotatedDataset


def thing(name, x1, y1, x2, y2, difficult=0):
    box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


@pytest.fixture
def put(tmp_path):
    def write(name, *objects, xml=None):
        for place in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (tmp_path / "d" / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / "d" / "JPEGImages" / f"{name}.jpg")
        text = xml or f"<annotation>{''.join(objects)}</annotation>"
        (tmp_path / "d" / "Annotations" / f"{name}.xml").write_text(text)

    return write


@pytest.fixture
def load(tmp_path):
    return lambda: voc.load(AnnotatedDataset(source="voc", path="d"), Paths(tmp_path))


@pytest.fixture
def sets(tmp_path):
    def write(**lists):
        for split, names in lists.items():
            (tmp_path / "d" / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))

    return write


def test_boxes_classes_and_difficult_ones(put, load):
    put("a", thing("dog", 1, 1, 40, 30), thing("cat", 11, 6, 20, 15, difficult=1))
    found = load()
    scene = found.train.read(0)
    assert found.kinds == {"boxes": ["cat", "dog"]}
    assert scene.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 20, 15]]  # VOC counts from 1, the last pixel included
    assert (scene.labels.tolist(), scene.difficult.tolist()) == ([1, 0], [False, True])
    assert (found.val, found.test, found.notes, found.skipped) == (None, None, [], [])


def test_lists_give_the_splits(put, load, sets):
    for name in "abcd":
        put(name, thing("dog", 1, 1, 9, 9))
    sets(train=["b", "a"], val=["c"], test=["d"])
    assert [part.total for part in (load().train, load().val, load().test)] == [2, 1, 1]
    sets(val=["a"])
    with pytest.raises(UserError, match=r"ImageSets/Main: 'a' stands there 2 times; a picture is in one split, once"):
        load()


def test_trainval_stands_for_train(put, load, sets):
    for name in "ab":
        put(name, thing("dog", 1, 1, 9, 9))
    sets(trainval=["a"], test=["b"])
    found = load()
    assert (found.train.total, found.val, found.test.total) == (1, None, 1)


def test_odd_boxes_get_a_line_each(put, load):
    put("a", thing("dog", 0, 0, 40, 30))  # counted from 0: not worth a word
    put("b", thing("dog", 31, 1, 55, 10))
    put("c", thing("dog", 61, 1, 70, 10), thing("dog", 5, 5, 4, 9), thing("dog", 1, 1, 9, 9))
    put("d")
    found = load()
    assert found.train.read(1).boxes.tolist() == [[30, 0, 40, 10]]
    assert [len(found.train.read(i).boxes) for i in range(4)] == [1, 1, 1, 0]
    assert found.train.read(3).boxes.shape == (0, 4)
    assert found.notes == [
        "1 box(es) reach outside of their picture and were cut, the first in b.xml",
        "2 box(es) lie outside of their picture or are empty and were left out, the first in c.xml",
        "1 picture(s) have no object; they are kept, as nothing but background, the first in d.xml",
    ]


def test_what_cannot_be_read_is_left_out(put, load, tmp_path, sets):
    put("a", thing("dog", 1, 1, 9, 9))
    put("b", xml="<annotation><object>")
    put("c", xml="<annotation><object><name>dog</name></object></annotation>")
    put("d", thing("dog", "x", 1, 9, 9))
    put("e", thing("dog", 1, 1, 9, 9))
    (tmp_path / "d" / "Annotations" / "e.xml").unlink()
    sets(train=[*"abcde", "missing"])
    found = load()
    assert found.train.total == 1
    assert {entry["file"]: entry["reason"].split(":")[0] for entry in found.skipped} == {
        "JPEGImages/missing.jpg": "not a file, or a link to nothing",
        "JPEGImages/b.jpg": "b.xml", "JPEGImages/c.jpg": "c.xml", "JPEGImages/d.jpg": "d.xml",
        "JPEGImages/e.jpg": "it has no annotation e.xml",
    }  # fmt: skip


def test_a_class_that_training_does_not_have(put, load, sets):
    put("a", thing("dog", 1, 1, 9, 9))
    put("b", thing("owl", 1, 1, 9, 9))
    sets(train=["a"], test=["b"])
    with pytest.raises(UserError, match="class 'owl' is in test but not in the training pictures"):
        load()


def test_nothing_there_is_one_line(put, load):
    with pytest.raises(UserError, match="has no JPEGImages/ and Annotations/"):
        load()
    put("a")
    with pytest.raises(UserError, match="voc: no object in the training pictures"):
        load()


def test_the_digest_is_of_the_annotations_too(put, load):
    put("a", thing("dog", 1, 1, 9, 9))
    first = load().digest
    put("a", thing("dog", 1, 1, 9, 10))
    assert load().digest != first


def test_the_picture_is_read(put, load):
    put("a", thing("dog", 1, 1, 9, 9))
    assert np.array_equal(load().train.read(0).image, np.zeros((30, 40, 3), np.uint8))
