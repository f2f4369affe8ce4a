import pytest
import torch
from sklearn.datasets import load_sample_image


@pytest.fixture(scope="session")
def photos():
    """20 pieces of 32 x 32 of a real photograph, at a quarter of its size."""
    photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1).float() / 255
    small = torch.nn.functional.interpolate(photo[None], scale_factor=0.25, mode="area")[0]
    x = torch.stack([small[:, i : i + 32, j : j + 32] for i in (0, 20, 40, 60) for j in (0, 30, 60, 90, 120)])
    return (x * 255).round() / 255
