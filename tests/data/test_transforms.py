import numpy as np
import pytest
import torch
from skimage.filters import sobel as skimage_sobel

from miyagi.data.transforms import NOISE, TRANSFORMS, sobel
from miyagi.settings import Embed


@pytest.fixture
def x():
    from sklearn.datasets import load_sample_image

    photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1).float() / 255
    return torch.stack([photo[:, i : i + 32, j : j + 32] for i in (10, 200) for j in (10, 200, 400)])


def test_settings_name_all_of_them():
    assert Embed(transforms=list(TRANSFORMS)).transforms == list(TRANSFORMS)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_copies_are_images_and_differ(x, name):
    copies = TRANSFORMS[name](x, torch.arange(6))
    assert len(copies) == (3 if name == "rotation" else 1)
    for copy in copies:
        assert copy.shape == x.shape and copy.min() >= 0 and copy.max() <= 1
        assert (copy - x).abs().mean() > 0.01


def test_sobel_is_scikit_image_s(x):
    luma = (x * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1)
    for found, image in zip(sobel(x)[:, 1], luma.numpy(), strict=True):
        # scikit-image divides by sqrt(2), so that the two directions' mean square is taken.
        assert np.allclose(found, (skimage_sobel(image, mode="nearest") * np.sqrt(2)).clip(max=1), atol=1e-5)


def test_noise_is_drawn_by_sample(x):
    (noisy,) = TRANSFORMS["noise"](0 * x + 0.5, torch.arange(6))
    assert abs(noisy.std() - NOISE) < 0.002 and abs(noisy.mean() - 0.5) < 0.002
    (part,) = TRANSFORMS["noise"](0 * x[3:5] + 0.5, torch.tensor([3, 4]))
    assert torch.equal(part, noisy[3:5])
