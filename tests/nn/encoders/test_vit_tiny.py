import pytest
import torch
from pydantic import ValidationError

from miyagi.nn.encoders.base import build
from miyagi.nn.encoders.vit_tiny import Settings

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def make(**settings):
    torch.manual_seed(0)
    return build({"name": "vit_tiny", "width": 24, "depth": 2, **settings}, MEAN, STD).eval()


def test_the_default_is_deit_tiny():
    encoder = build({"name": "vit_tiny", "patch": 16}, MEAN, STD)
    blocks = 12 * (12 * 192**2 + 13 * 192)  # weights, then biases and both norms
    assert sum(p.numel() for p in encoder.parameters()) == 3 * 16**2 * 192 + 192 + blocks + 2 * 192
    assert encoder.layers == ["embed", *(f"block{i}" for i in range(1, 13))]


@pytest.mark.parametrize(("size", "side"), [(8, 2), (28, 7), (32, 8), (45, 11)])
def test_maps_are_the_tokens_of_any_size(size, side):
    encoder = make()
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        maps = encoder.maps(x)
        assert {tuple(each.shape) for each in maps.values()} == {(2, 24, side, side)}
        torch.testing.assert_close(encoder(x), maps["block2"].mean((2, 3)))


def test_a_token_is_its_patch_until_the_first_block():
    encoder = make()
    x = torch.rand(1, 3, 16, 16)
    other = x.clone()
    other[:, :, 4:8, 8:12] += 0.5
    with torch.no_grad():
        before, after = encoder.maps(x), encoder.maps(other)
    changed = (before["embed"] != after["embed"]).any(1)[0]
    assert changed.nonzero().tolist() == [[1, 2]]
    assert (before["block1"] != after["block1"]).any(1).all()


def test_wrong_settings_and_sizes():
    for wrong in ({"width": 30}, {"width": 64, "heads": 3}, {"patch": 0}, {"depth": 0}):
        with pytest.raises(ValidationError):
            Settings(**wrong)
    with pytest.raises(ValueError, match="at least 8 pixels, got 7"):
        make()(torch.rand(1, 3, 7, 7))
