import numpy as np
import pytest
from sklearn.linear_model import Ridge

from miyagi.report.activation import RIDGE, SIDE, activations, mapped, overlay, ridge


def test_the_layer_that_is_looked_at():
    channels = [("conv1", 4), ("conv2", 4), ("conv3", 4)]
    assert mapped(channels, {"conv1": 64, "conv2": 36, "conv3": 16}) == ("conv2", 4, 3)  # the deepest of 3 x 3
    assert mapped(channels, {"conv1": 16, "conv2": 16, "conv3": 4}) == ("conv2", 4, 2)
    assert mapped(channels, {"conv1": 4, "conv2": 4, "conv3": 4}) is None
    assert mapped([("conv1", 4)], {"conv1": 24}) is None  # 2 x 3: not square


def test_ridge_is_scikit_learns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 6)) * [1, 2, 3, 1, 1, 1], rng.integers(0, 3, 80)
    weights, mean = ridge(x, y)
    centred = x - x.mean(0)
    penalty = RIDGE * (centred**2).sum() / 6
    np.testing.assert_allclose(weights.T, Ridge(alpha=penalty).fit(x, np.eye(3)[y]).coef_, atol=1e-10)
    np.testing.assert_allclose(mean, x.mean(0))


def test_evidence_lies_where_the_class_shows_itself(write_bank):
    """Class c has its channel c lit at one place; all else is noise."""
    rng = np.random.default_rng(0)
    arrays, places = {}, {}
    for split, n in (("train", 300), ("val", 30), ("test", 30)):
        labels, place = rng.integers(0, 3, n), rng.integers(0, 9, n)
        maps = 0.1 * rng.random((n, 3, 9))
        maps[np.arange(n), labels, place] += 5
        arrays |= {f"{split}.conv1": maps.reshape(n, 27), f"{split}.labels": labels}
        places[split] = place
    found = activations(write_bank(arrays, channels=[["conv1", 3]]))
    assert (found.layer, found.grid) == ("conv1", 3)
    assert found.labels.tolist() == [0, 1, 2]
    for query, map_ in zip(found.queries, found.maps, strict=True):
        assert map_.argmax() == places["test"][query] and map_.max() == pytest.approx(1)


def test_no_maps_no_pictures(write_bank, pixels):
    assert activations(write_bank(pixels)) is None


def test_red_for_and_blue_against():
    image = np.full((8, 8, 3), 128, np.uint8)
    drawn = overlay(image, np.array([[1.0, 0.0], [0.0, -1.0]]))
    assert drawn.shape == (SIDE, SIDE, 3)
    red, blue = drawn[0, 0].astype(int), drawn[-1, -1].astype(int)
    assert red[0] > 150 > red[2] and blue[2] > 150 > blue[0]
    assert (overlay(image, np.zeros((2, 2))) == 128).all()
