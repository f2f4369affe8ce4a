import torch

from miyagi.methods.base import build


def test_the_encoder_stays_as_it_was_initialised(encoder, info):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    floor = build("random", {"recipe": "weak"}, encoder, info)
    assert floor.encoder is encoder
    assert floor.views == ()
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
