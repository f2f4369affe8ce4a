"""Two halves, each blind to what the other sees."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage import color

from miyagi.nn.encoders.base import build
from miyagi.nn.encoders.pair import Settings, halves

HALF = {"name": "conv4", "width": 4, "grid": 2}
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return build({"name": "pair", "split": "lab", "of": HALF}, MEAN, STD).eval()


def from_lab(lab):
    return torch.from_numpy(color.lab2rgb(lab, channel_axis=1)).float()


@pytest.fixture
def lab():
    """Colours well inside of what sRGB can show, so that L and ab can be changed apart."""
    rng = np.random.default_rng(0)
    return np.stack([rng.uniform(45, 55, (2, 32, 32)), *rng.uniform(-15, 15, (2, 2, 32, 32))], 1)


def test_each_half_sees_its_own(pair, lab):
    other = lab.copy()
    other[:, 1:] = -other[:, 1:]
    with torch.no_grad():
        first, second = pair(from_lab(lab)).chunk(2, 1)
        same, changed = pair(from_lab(other)).chunk(2, 1)
        assert (changed - second).abs().max() > 30 * (same - first).abs().max()
        other = lab.copy()
        other[:, 0] = 100 - other[:, 0]
        changed, same = pair(from_lab(other)).chunk(2, 1)
        assert (changed - first).abs().max() > 30 * (same - second).abs().max()


def test_what_the_halves_are_given(pair, lab):
    light, ab = halves(torch.from_numpy(lab).float())
    assert light.shape == ab.shape == (2, 3, 32, 32)
    for channel in range(3):
        np.testing.assert_allclose(light[:, channel] * 100, lab[:, 0], atol=1e-4)
    np.testing.assert_allclose((ab[:, :2] * 2 - 1) * 110, lab[:, 1:], atol=1e-4)
    assert (ab[:, 2] == 0.5).all()  # nought after normalisation
    torch.testing.assert_close(pair.first.normalize(light), light * 2 - 1)
    torch.testing.assert_close(pair.split(from_lab(lab))[1], ab, atol=1e-4, rtol=0)
    torch.testing.assert_close(pair.second.normalize(pair.split(torch.full((1, 3, 16, 16), 0.4))[1]),
                               torch.zeros(1, 3, 16, 16), atol=1e-3, rtol=0)  # fmt: skip


def test_everything_is_concatenated(pair):
    x = torch.rand(3, 3, 32, 32)
    light, ab = pair.split(x)
    with torch.no_grad():
        torch.testing.assert_close(pair(x), torch.cat([pair.first(light), pair.second(ab)], 1))
        for layer, found in pair.maps(x).items():
            want = torch.cat([pair.first.maps(light)[layer], pair.second.maps(ab)[layer]], 1)
            torch.testing.assert_close(found, want)
        taps = pair.taps(x, 32)
        torch.testing.assert_close(taps["encoder"], pair(x))
    assert pair.dim == 32
    assert {layer: values.shape[1] for layer, values in taps.items()} == {
        "conv1": 32, "conv2": 32, "conv3": 32, "conv4": 32, "encoder": 32,
    }  # fmt: skip


def test_built_again_it_takes_the_weights(pair):
    again = build({"name": "pair", "split": "lab", "of": HALF}, MEAN, STD).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(again(x), pair(x))
        again.load_state_dict(pair.state_dict())
        assert torch.equal(again(x), pair(x))
    assert not torch.equal(pair.first.blocks["conv1"][0].weight, pair.second.blocks["conv1"][0].weight)


def test_other_encoders_can_be_halves():
    pair = build({"name": "pair", "of": {"name": "resnet18", "stem": "small"}}, MEAN, STD)
    assert (pair.dim, pair.min_size, pair.layers[0]) == (1024, 8, "stem")
    with pytest.raises(ValidationError, match="the halves of a pair cannot be pairs"):
        Settings(of={"name": "pair"})
