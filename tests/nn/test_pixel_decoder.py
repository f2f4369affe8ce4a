import torch

from miyagi.nn.encoders.base import build
from miyagi.nn.pixel_decoder import PixelDecoder, last_map, scale_for


def test_a_place_of_the_map_answers_for_its_own_square():
    torch.manual_seed(0)
    decoder = PixelDecoder(channels=5, scale=4, width=16, classes=7)
    x = torch.rand(1, 5, 2, 3)
    before = decoder(x)
    assert before.shape == (1, 7, 8, 12)
    x[0, :, 1, 2] += 1
    changed = (decoder(x) != before).any(1)[0]
    assert changed[4:, 8:].all()
    changed[4:, 8:] = False
    assert not changed.any()
    assert len(before.flatten(2).unique(dim=2)[0, 0]) > 6  # different answers inside of a square


def test_the_last_map_is_looked_at_without_a_trace():
    encoder = build({"name": "conv4", "width": 8}, (0.5,) * 3, (0.3,) * 3)
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert [last_map(encoder, size) for size in (28, 32, 96)] == [(8, 1), (8, 2), (8, 6)]
    assert encoder.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())


def test_about_a_place_for_each_stride():
    assert [side * scale_for(side, size, 4) for side, size in ((1, 28), (2, 32), (4, 32), (7, 224), (8, 32))] == [
        7, 8, 8, 56, 8,
    ]  # fmt: skip
    assert scale_for(8, 32, 32) == 1
