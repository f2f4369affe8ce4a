import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.nn.encoders.conv4 import Conv4, Settings


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's 1,797 real digits: N x 3 x 32 x 32 uint8 and N labels."""
    found = load_digits()
    images = torch.from_numpy(found.images / 16).float()[:, None].expand(-1, 3, -1, -1)
    large = torch.nn.functional.interpolate(images, size=32, mode="bilinear")
    return (large * 255).round().to(torch.uint8), torch.from_numpy(found.target.astype(np.int64))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Conv4(Settings(width=16), (0.5,) * 3, (0.3,) * 3)


@pytest.fixture
def info():
    return DataInfo(n=256, classes=10, size=32, mean=(0.5,) * 3, std=(0.3,) * 3)


@pytest.fixture
def make_batch(digits):
    """Batches of augmented real digits: make_batch(method, recipes, epoch=0, n=128); each of 14 epochs has its own."""
    from miyagi.data.augment import augment

    def make(method, recipes, epoch=0, n=128):
        images, labels = digits
        index, key = torch.arange(n) + 128 * (epoch % 14), Key(0, epoch)
        views = [
            augment(images[index], index, key, view.name, recipes[view.recipe % len(recipes)], view.size or 32)
            for view in method.views
        ]
        return Batch(views, index, labels[index], key)

    return make
