import pytest
import torch

from miyagi.nn.encoders.base import build
from miyagi.nn.fcn import FCN

MIDDLE = (0.5,) * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "conv4", "width": 8},
        {"name": "resnet18", "stem": "small"},
        {"name": "vit_tiny", "depth": 2, "width": 12},
        {"name": "pair", "of": {"name": "conv4", "width": 4}},
    ],
)
def test_numbers_for_every_pixel_of_any_shape(settings):
    torch.manual_seed(0)
    model = FCN(build(settings, MIDDLE, MIDDLE), 5, 2, 16, 32).eval()
    for shape in ((32, 32), (36, 50)):
        assert model(torch.rand(2, 3, *shape)).shape == (2, 5, *shape)


def test_skips_start_at_nothing_and_then_matter(encoder):
    torch.manual_seed(0)
    model = FCN(encoder, 3, 2, 16, 32).eval()
    assert list(model.skips) == ["conv3", "conv2"]
    x = torch.rand(1, 3, 32, 32)
    maps = encoder.maps(x, ["conv4"])
    z = model.head(maps["conv4"])
    for side in (4, 8, 32):  # of conv3, conv2 and the picture
        z = torch.nn.functional.interpolate(z, (side, side), mode="bilinear")
    assert torch.allclose(model(x), z, atol=1e-6)
    before = model(x)
    torch.nn.init.ones_(model.skips["conv2"].weight)
    assert not torch.allclose(model(x), before, atol=1e-3)


def test_the_encoder_is_a_part_of_it(encoder):
    model = FCN(encoder, 3, 9, 16, 32)
    assert len(model.skips) == 3
    model(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
