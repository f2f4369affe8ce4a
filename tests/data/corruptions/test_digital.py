"""Against scikit-image, Pillow and OpenCV."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv

from miyagi.data.corruptions import digital
from miyagi.data.corruptions.draws import Draws
from miyagi.data.rng import Key


@pytest.fixture
def draws(photos):
    return Draws(Key(0, 1), "x", torch.arange(len(photos)))


@pytest.fixture
def odd(photos):
    """Photographs, black, grey, white and pure colours."""
    colors = torch.tensor([[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1], [1, 0, 0], [0, 0.5, 0.5]]).float()
    return torch.cat([photos, colors[:, :, None, None].expand(-1, -1, 32, 32)])


def hwc(x):
    return x.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("amount", [0.05, 0.3])
def test_brightness_is_v(odd, draws, amount):
    hsv = rgb2hsv(hwc(odd))
    hsv[..., 2] = np.clip(hsv[..., 2] + amount, 0, 1)
    assert np.allclose(hwc(digital.brightness(odd, draws, amount)), hsv2rgb(hsv), atol=1e-5)


@pytest.mark.parametrize(("factor", "shift"), [(0.3, 0.0), (2.0, 0.1), (2.5, 0.2)])
def test_saturate_is_s(odd, draws, factor, shift):
    hsv = rgb2hsv(hwc(odd))
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + shift, 0, 1)
    assert np.allclose(hwc(digital.saturate(odd, draws, factor, shift)), hsv2rgb(hsv), atol=1e-5)


def test_contrast_by_hand(draws):
    x = torch.tensor([0.2, 0.6]).repeat(16).expand(20, 3, 32, 32)  # mean 0.4
    assert torch.allclose(digital.contrast(x, draws, 0.5)[..., :2], torch.tensor([0.3, 0.5]), atol=1e-6)


@pytest.mark.parametrize("share", [0.95, 0.75, 0.5])
def test_pixelate_is_pillow_s(photos, draws, share):
    for found, image in zip(hwc(digital.pixelate(photos, draws, share)), hwc(photos), strict=True):
        picture = Image.fromarray((image * 255).round().astype(np.uint8))
        small = picture.resize((int(32 * share),) * 2, Image.Resampling.BOX)
        expected = np.asarray(small.resize((32, 32), Image.Resampling.BOX)) / 255
        assert np.abs(found - expected).max() < 1.6 / 255  # Pillow rounds between its steps


@pytest.mark.parametrize("quality", [80, 40, 10])
def test_jpeg_is_pillow_s(photos, draws, quality):
    ours, theirs = [], []
    for found, image in zip(hwc(digital.jpeg(photos, draws, quality)), hwc(photos), strict=True):
        file = io.BytesIO()
        Image.fromarray((image * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
        ours.append(found.clip(0, 1))
        theirs.append(np.asarray(Image.open(file)) / 255)
    apart = np.abs(np.stack(ours) - np.stack(theirs)).mean()
    effect = np.abs(np.stack(theirs) - hwc(photos)).mean()
    assert apart < 1 / 255 and apart < effect / 5  # both round; libjpeg in whole numbers


def test_jpeg_of_sides_that_are_no_multiple_of_16(photos, draws):
    x = photos[:, :, :27, :27].contiguous()
    assert (digital.jpeg(x, draws, 80) - x).abs().mean() < 0.03


def test_elastic_without_shifts_is_opencv_s_affine_map(photos, draws):
    """The points' draws are the same; OpenCV inverts the map, reflects and interpolates."""
    out = hwc(digital.elastic(photos, draws, 0.0, 0.0, 0.08))
    moves = 0.08 * 32 * (2 * draws.uniform("affine", 3, 2).numpy() - 1)
    fixed = np.float32([[26, 26], [26, 6], [6, 6]])
    for found, image, move in zip(out, hwc(photos), moves, strict=True):
        matrix = cv2.getAffineTransform(fixed, fixed + move.astype(np.float32))
        expected = cv2.warpAffine(image, matrix, (32, 32), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(found - expected).mean() < 0.003  # OpenCV's weights have 5 bits


def test_elastic_shifts_are_smooth_and_small(draws):
    """A ramp shows by how much each pixel was shifted to the side."""
    ramp = (torch.arange(32) / 31).expand(20, 3, 32, 32).contiguous()
    shift = (digital.elastic(ramp, draws, 0.1, 0.03, 0.0) - ramp)[:, 0, :, 6:26] * 31
    assert 0.1 < shift.abs().mean() < 3.2
    neighbours = (shift[:, :, 1:] - shift[:, :, :-1]).abs().mean()
    assert neighbours < shift.abs().mean()
