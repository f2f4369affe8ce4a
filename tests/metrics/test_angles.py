import numpy as np
import pytest

from miyagi.metrics.angles import angles, pooled_median


def test_known_angles():
    axes = np.eye(3)
    assert angles(axes, axes).tolist() == [0, 0, 0]
    assert angles(axes, -axes) == pytest.approx([180] * 3)
    assert angles(axes, np.roll(axes, 1, 0)) == pytest.approx([90] * 3)
    slanted = np.array([np.cos(np.radians(22.5)), np.sin(np.radians(22.5)), 0])
    assert angles(slanted, axes[0]) == pytest.approx(22.5)


def test_the_pooled_median_is_numpy_s_on_the_pixels_drawn():
    rng = np.random.default_rng(0)
    images = [rng.random(size) * 90 for size in (7, 0, 12, 5)]
    median = pooled_median(images)
    counts = np.array([[1, 1, 1, 1], [2, 0, 0, 1], [0, 3, 1, 0], [0, 2, 0, 0]], float)
    for row, found in zip(counts.astype(int), median(counts), strict=True):
        drawn = np.concatenate([np.tile(image, times) for image, times in zip(images, row, strict=True)])
        assert np.isnan(found) if not len(drawn) else found == pytest.approx(np.median(drawn))
