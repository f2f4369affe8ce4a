import numpy as np
import torch
from torchvision.transforms import functional as tv

from miyagi.data.patches import cut, enlarge, mosaic, standardize


def test_cut_by_hand():
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    got = cut(x, torch.tensor([[0, 2], [1, 0]]), torch.tensor([[0, 3], [2, 1]]), 2)
    assert got.shape == (2, 2, 3, 2, 2)
    assert torch.equal(got[0, 0], x[0, :, 0:2, 0:2])
    assert torch.equal(got[0, 1], x[0, :, 2:4, 3:5])
    assert torch.equal(got[1, 0], x[1, :, 1:3, 2:4])
    assert torch.equal(got[1, 1], x[1, :, 0:2, 1:3])


def test_small_patches_are_enlarged_and_large_ones_stay():
    patches = torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(enlarge(patches, 16), tv.resize(patches, [16, 16], antialias=False))
    assert torch.equal(enlarge(patches, 7), patches)
    assert torch.equal(enlarge(patches, 5), patches)


def test_each_channel_of_each_patch_is_standardised():
    patches = torch.rand(2, 9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = patches.numpy().astype(np.float64)
    want = (x - x.mean((3, 4), keepdims=True)) / x.std((3, 4), keepdims=True)
    np.testing.assert_allclose(standardize(patches).numpy(), want, atol=1e-5)
    assert torch.equal(standardize(torch.full((1, 3, 8, 8), 0.25)), torch.zeros(1, 3, 8, 8))


def test_a_picture_of_tiles():
    tiles = torch.arange(9.0).reshape(1, 9, 1, 1, 1).expand(1, 9, 3, 2, 2) / 10
    picture = mosaic(tiles)
    assert picture.shape == (1, 3, 8, 8)
    assert picture[0, 0].mul(10).round().int().tolist() == [
        [0, 0, 10, 1, 1, 10, 2, 2],
        [0, 0, 10, 1, 1, 10, 2, 2],
        [10] * 8,
        [3, 3, 10, 4, 4, 10, 5, 5],
        [3, 3, 10, 4, 4, 10, 5, 5],
        [10] * 8,
        [6, 6, 10, 7, 7, 10, 8, 8],
        [6, 6, 10, 7, 7, 10, 8, 8],
    ]
