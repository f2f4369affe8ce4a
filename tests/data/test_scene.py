import numpy as np
import pytest

from miyagi.data.scene import Scene, shrunk, trouble


def test_boxes_masks_and_normals_shrink_with_their_picture():
    image = np.zeros((40, 80, 3), np.uint8)
    mask = np.zeros((40, 80), np.uint8)
    image[10:20, 40:60], mask[10:20, 40:60] = 255, 7
    normals = np.where(mask[..., None] == 7, np.uint8(255), np.uint8([128, 128, 255]))
    found = shrunk(Scene(image, np.float32([[40, 10, 60, 20]]), np.int64([2]), mask=mask, normals=normals), 20)
    assert (found.image.shape, found.mask.shape, found.normals.shape) == ((20, 40, 3), (20, 40), (20, 40, 3))
    assert found.boxes.tolist() == [[20, 5, 30, 10]]
    assert set(np.unique(found.mask)) == {0, 7}  # nothing between two labels
    assert (found.mask[5:10, 20:30] == 7).all() and (found.mask == 7).sum() == 50
    assert set(map(tuple, found.normals.reshape(-1, 3).tolist())) == {(255, 255, 255), (128, 128, 255)}
    assert found.labels.tolist() == [2]


def test_a_small_picture_stays():
    scene = Scene(np.zeros((20, 30, 3), np.uint8))
    assert shrunk(scene, 20) is scene


@pytest.mark.parametrize(
    ("shape", "annotation", "reason"),
    [
        ((10, 40, 3), None, None),
        ((10, 41, 3), None, "41 x 10 pixels: longer than 4 times its shorter side"),
        ((10, 20, 3), (10, 20), None),
        ((10, 20, 3), (20, 10), "its annotation has 10 x 20 pixels, the picture 20 x 10"),
    ],
)
def test_trouble(shape, annotation, reason):
    assert trouble(shape, annotation) == reason
