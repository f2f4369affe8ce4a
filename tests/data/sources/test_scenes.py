"""Canvases whose boxes and masks are exact, and a function of the settings alone."""

import itertools

import numpy as np
import pytest

from miyagi.data.sources import scenes
from miyagi.paths import Paths
from miyagi.settings import AnnotatedDataset

SETTINGS = {"source": "scenes", "of": "digits", "path": "x", "shorter_side": 48, "objects": 4, "train_limit": 40}


@pytest.fixture
def load(tmp_path):
    return lambda **changes: scenes.load(AnnotatedDataset(**{**SETTINGS, **changes}), Paths(tmp_path))


def test_boxes_are_the_extent_of_what_the_mask_shows(load):
    found = load()
    assert found.kinds["masks"] == ["background", *found.kinds["boxes"]]
    counts = []
    for i in range(found.train.total):
        scene = found.train.read(i)
        assert scene.image.shape == (48, 48, 3)
        covered = np.zeros((48, 48), bool)
        for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int).tolist(), scene.labels, strict=True):
            part = scene.mask[y1:y2, x1:x2]
            assert set(np.unique(part)) <= {0, label + 1}  # no other object reaches into the box
            ink = part == label + 1
            assert ink.any(0)[[0, -1]].all() and ink.any(1)[[0, -1]].all()  # it is tight on all four sides
            assert (scene.image[y1:y2, x1:x2][ink].max(1) >= scenes.INK).all()
            covered[y1:y2, x1:x2] = True
        assert (scene.mask[~covered] == 0).all()
        for (a1, b1, a2, b2), (x1, y1, x2, y2) in itertools.combinations(scene.boxes.tolist(), 2):
            assert min(a2, x2) <= max(a1, x1) or min(b2, y2) <= max(b1, y1)
        counts.append(len(scene.boxes))
    assert set(counts) >= {1, 2, 3} and max(counts) <= 4


def test_without_cut_out_an_object_is_its_whole_square(load):
    scene = load(cut_out=False).train.read(1)
    for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int).tolist(), scene.labels, strict=True):
        assert x2 - x1 == y2 - y1
        assert (scene.mask[y1:y2, x1:x2] == label + 1).all()


def test_a_canvas_depends_on_seed_and_number_alone(load):
    one, other = load().train.read(7), load(train_limit=8, objects=4).train.read(7)
    assert np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)
    assert not np.array_equal(one.image, load(split_seed=1).train.read(7).image)
    assert not np.array_equal(one.image, load().val.read(7).image)


def test_no_image_is_on_canvases_of_two_splits(load):
    found = load(train_limit=None)
    parts = [set(split.read.positions.tolist()) for split in (found.train, found.val, found.test)]
    assert not any(a & b for a, b in itertools.combinations(parts, 2))
    assert sum(map(len, parts)) == 1797
    assert [split.total for split in (found.train, found.val, found.test)] == [len(part) for part in parts]


def test_room_takes_the_first_place_that_is_free():
    taken = [(0, 0, 6, 6)]
    assert scenes.room(4, 4, 10, [0.0, 0.0, 0.999, 0.0], taken) == (6, 0, 10, 4)
    assert scenes.room(4, 4, 10, [0.0, 0.0, 0.2, 0.2], taken) is None
    assert scenes.room(4, 4, 10, [0.0, 0.0], []) == (0, 0, 4, 4)
