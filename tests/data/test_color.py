import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from miyagi.data.color import drop_colors, gray, mean, solarize
from miyagi.data.rng import Key, normal


def test_gray_equals_torchvision(fields):
    torch.testing.assert_close(gray(fields), reference.rgb_to_grayscale(fields, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0])
def test_solarize_equals_torchvision(fields, threshold):
    torch.testing.assert_close(solarize(fields, threshold), reference.solarize(fields, threshold))


@pytest.mark.parametrize("size", [(32, 32), (200, 180)])
def test_mean_does_not_depend_on_the_batch(size):
    x = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean(x)[:, :, 0, 0].double(), x.double().mean((2, 3)), atol=1e-6, rtol=0)
    assert torch.equal(mean(x[1:2, :1]), mean(x)[1:2, :1])


def test_dropped_colours_are_copies(fields):
    kept = torch.arange(len(fields)) % 3
    got = drop_colors(fields, kept, None)
    for i, channel in enumerate(kept.tolist()):
        assert torch.equal(got[i], fields[i, channel].expand(3, -1, -1))


def test_dropped_colours_are_noise_of_a_hundredth(fields):
    kept = torch.arange(len(fields)) % 3
    noise = normal(Key(0, 0), "noise", torch.arange(len(fields)), fields[0].numel()).reshape(fields.shape)
    got = drop_colors(fields, kept, noise)
    for i, channel in enumerate(kept.tolist()):
        assert torch.equal(got[i, channel], fields[i, channel])
        dropped = got[i, [c for c in range(3) if c != channel]].double().numpy()
        wanted = fields[i, channel].double().numpy().std() / 100
        assert abs(dropped.std() / wanted - 1) < 0.1
        assert abs(dropped.mean() - 0.5) < 4 * wanted / np.sqrt(dropped.size)
