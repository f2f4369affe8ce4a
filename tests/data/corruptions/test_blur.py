"""Against scikit-image, OpenCV and scipy."""

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from skimage.filters import gaussian as skimage_gaussian

from miyagi.data.corruptions import blur
from miyagi.data.corruptions.draws import Draws
from miyagi.data.rng import Key


@pytest.fixture
def draws(photos):
    return Draws(Key(0, 1), "x", torch.arange(len(photos)))


def hwc(x):
    return x.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_gaussian_is_scikit_image_s(photos, draws, sigma):
    for found, image in zip(hwc(blur.gaussian(photos, draws, sigma)), hwc(photos), strict=True):
        assert np.allclose(found, skimage_gaussian(image, sigma=sigma, channel_axis=-1), atol=1e-5)


@pytest.mark.parametrize(("radius", "alias"), [(0.3, 0.4), (1.0, 0.2), (1.5, 0.1), (4.0, 0.5)])
def test_defocus_is_opencv_s(photos, draws, radius, alias):
    grid = np.arange(-8, 9)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(np.float64)
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=(3, 3), sigmaX=alias)
    for found, image in zip(hwc(blur.defocus(photos, draws, radius, alias)), hwc(photos), strict=True):
        assert np.allclose(found, cv2.filter2D(image, -1, kernel), atol=1e-5)


def test_glass_moves_pixels_and_makes_none(photos, draws):
    out = blur.glass(photos, draws, 1e-3, 1, 2)
    for one, other in zip(out, photos, strict=True):
        pixels = [sorted(map(tuple, x.flatten(1).T.mul(255).round().int().tolist())) for x in (one, other)]
        assert pixels[0] == pixels[1]
    moved = (out != photos).any(1).float().mean()
    assert 0.3 < moved < 1
    assert torch.equal(out[:, :, 0], photos[:, :, 0])  # no partner lies outside


@pytest.mark.parametrize(("degrees", "down", "right"), [(0.0, 0, 1), (90.0, 1, 0), (-45.0, -1, 1)])
def test_a_trail_is_a_filter_along_a_line(photos, degrees, down, right):
    sigma, taps = 2.0, np.arange(13)
    weight = np.exp(-0.5 * (taps / sigma) ** 2)
    kernel = np.zeros((27, 27))
    for tap, share in zip(taps, weight / weight.sum(), strict=True):
        step = round(tap * np.sqrt(0.5) if degrees == -45 else tap)
        kernel[13 + down * step, 13 + right * step] += share
    out = blur.trail(photos, 6, sigma, torch.full((len(photos),), degrees))
    for found, image in zip(hwc(out), hwc(photos), strict=True):
        assert np.allclose(found, cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE), atol=1e-5)


def test_motion_goes_up_to_45_degrees_either_way(draws):
    """A point's trail: its ends say in which directions it went."""
    x = torch.zeros(20, 3, 33, 33)
    x[:, :, 16, 16] = 1
    out = blur.motion(x, draws, 9 * 32 / 33, 9.0)
    rows, columns = (out[:, 0].sum(axis) for axis in (2, 1))
    assert (columns[:, 17:] < 1e-6).all()  # a pixel takes from its right, so the point's trail is to its left
    ends = [(row > 1e-6).nonzero()[:, 0] - 16 for row in rows]
    assert min(e.min() for e in ends) < -3 and max(e.max() for e in ends) > 3


@pytest.mark.parametrize("factor", [1.0, 1.1, 2.5])
def test_magnify_is_scipy_s(photos, factor):
    found = blur.magnify(photos[0, 0], factor)
    offset = 15.5 - 15.5 / factor
    expected = affine_transform(photos[0, 0].numpy(), [1 / factor] * 2, [offset] * 2, order=1, mode="nearest")
    assert np.allclose(found, expected, atol=1e-5)


def test_zoom_is_the_mean_of_its_steps(photos, draws):
    expected = (photos + sum(blur.magnify(photos, 1 + i / 100) for i in range(6))) / 7
    assert torch.allclose(blur.zoom(photos, draws, 1.06), expected, atol=1e-6)
