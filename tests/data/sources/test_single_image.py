"""Crops of one picture: what they show, that they are a function of seed and number, and that labels are not pretended."""

import numpy as np
import pytest
from PIL import Image

from miyagi.data.rng import Key
from miyagi.data.sources import single_image
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset


def load(root, **settings):
    return single_image.load(Dataset(**{"source": "single_image", "path": "single_image.py", **settings}), Paths(root))


def test_crops_of_china(tmp_path):
    raw = load(tmp_path, train_limit=90)
    assert raw.classes == ["picture"]
    assert set(raw.train.labels.tolist()) == {0}
    assert len(raw.train.labels) - round(0.1 * len(raw.train.labels)) >= 90
    assert len(raw.test.labels) == single_image.TESTS
    crops = np.stack([raw.train.read(i) for i in range(20)])
    assert crops.shape == (20, 32, 32, 3)
    assert np.array_equal(crops[3], load(tmp_path).train.read(3))
    assert not np.array_equal(crops[3], load(tmp_path, split_seed=1).train.read(3))
    assert not np.array_equal(crops[3], raw.test.read(3))
    assert len({crop.tobytes() for crop in crops}) == 20


def test_a_crop_shows_a_turned_square_of_the_picture():
    """On a picture whose red is x and whose green is y, a crop's pixels tell where they come from."""
    x, y = np.meshgrid(np.arange(200), np.arange(160))
    picture = np.stack([x, y, np.zeros_like(x)], 2).astype(np.uint8)
    sides, turns = [], []
    for number in range(40):
        shown = single_image.crop(picture, 16, Key(0, 0), number).astype(float)
        assert (shown[..., 2] == 0).all()
        right = (shown[:, -1] - shown[:, 0]).mean(0)[:2] / 15  # of the picture for a pixel of the crop
        down = (shown[-1] - shown[0]).mean(0)[:2] / 15
        assert right @ down / np.hypot(*right) / np.hypot(*down) == pytest.approx(0, abs=0.1)  # square to each other,
        assert np.hypot(*right) == pytest.approx(np.hypot(*down), abs=0.1)  # and as long
        sides.append(16 * np.hypot(*right))
        turns.append(np.degrees(np.arctan2(right[1], right[0])))
        assert (shown[..., :2].max((0, 1)) <= [199, 159]).all()
    low, high = (160 * area**0.5 for area in single_image.AREA)
    assert low - 2 < min(sides) < 30 and 60 < max(sides) < high + 2
    assert -31 < min(turns) < -15 and 15 < max(turns) < 31


def test_nothing_of_the_outside_is_in_a_crop():
    picture = np.full((90, 120, 3), 200, np.uint8)
    for number in range(100):
        assert (single_image.crop(picture, 24, Key(0, 0), number) == 200).all()


def test_a_picture_of_one_s_own(tmp_path):
    Image.new("RGB", (64, 48), (10, 20, 30)).save(tmp_path / "mine.png")
    assert load(tmp_path, path="mine.png").train.read(0)[5, 5].tolist() == [10, 20, 30]
    with pytest.raises(UserError, match=r"single_image: there is no picture other\.png; mend the path"):
        load(tmp_path, path="other.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"single_image: cannot read broken\.png: not an image that Pillow knows"):
        load(tmp_path, path="broken.png")
