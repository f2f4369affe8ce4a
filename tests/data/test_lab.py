import numpy as np
import pytest
import torch
from skimage import color

from miyagi.data.lab import lab_to_rgb, rgb_to_lab


@pytest.fixture(scope="module")
def colours():
    """Every 8-bit shade in steps of 5, as 4 x 3 x 52 x 676 images: the corners and the whole inside of the cube."""
    shades = torch.arange(0, 256, 5) / 255
    cube = torch.cartesian_prod(shades, shades, shades).T
    return cube.reshape(3, 4, 52, 676).transpose(0, 1).contiguous()


def test_lab_equals_scikit_image(colours):
    want = color.rgb2lab(colours.double().numpy(), channel_axis=1)
    np.testing.assert_allclose(rgb_to_lab(colours).numpy(), want, atol=2e-3, rtol=0)


def test_rgb_equals_scikit_image(colours):
    lab = color.rgb2lab(colours.double().numpy(), channel_axis=1)
    got = lab_to_rgb(torch.from_numpy(lab).float())
    np.testing.assert_allclose(got.numpy(), color.lab2rgb(lab, channel_axis=1), atol=1e-3, rtol=0)


def test_there_and_back(colours):
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(colours)), colours, atol=1e-3, rtol=0)


def test_known_values_and_ranges(colours):
    white_black_red = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])[:, :, None, None]
    want = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0], [53.24, 80.09, 67.20]])  # Lindbloom's table
    torch.testing.assert_close(rgb_to_lab(white_black_red)[:, :, 0, 0], want, atol=2e-2, rtol=0)
    lab = rgb_to_lab(colours)
    assert lab[:, 0].min() >= -1e-4 and lab[:, 0].max() <= 100 + 1e-4
    assert lab[:, 1:].abs().max() < 110


def test_what_no_screen_shows_is_clipped():
    got = lab_to_rgb(torch.tensor([50.0, 120.0, -120.0]).reshape(1, 3, 1, 1))
    assert got.min() >= 0 and got.max() <= 1
    want = color.lab2rgb(np.array([[[50.0, 120.0, -120.0]]]))[0, 0]
    np.testing.assert_allclose(got.reshape(3).numpy(), want, atol=1e-3)


def test_an_image_has_the_same_bits_in_any_batch(colours):
    whole = rgb_to_lab(colours)
    assert torch.equal(rgb_to_lab(colours[2:3]), whole[2:3])
    assert torch.equal(lab_to_rgb(whole[1:2]), lab_to_rgb(whole)[1:2])
