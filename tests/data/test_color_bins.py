"""Against scikit-image's Lab, scikit-learn's neighbours and plain numpy."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from scipy.special import softmax
from skimage import color
from sklearn.neighbors import NearestNeighbors

from miyagi.data.color_bins import annealed_mean, gamut, nearest, rebalancing, soft_encode

BINS = gamut(10)


@pytest.fixture(scope="module")
def colours():
    """ab of random 8-bit colours, every second one as saturated as it can be, by scikit-image."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (1, 60_000, 3))
    rgb[0, np.arange(0, 60_000, 2), rng.integers(0, 3, 30_000)] = rng.choice([0, 255], 30_000)
    return color.rgb2lab(rgb / 255)[0, :, 1:]


def test_bins_are_the_corners_of_the_squares_that_hold_a_colour(colours):
    bins = BINS.numpy()
    assert bins.shape == (309, 2)
    assert (bins % 10 == 0).all()
    assert len(np.unique(bins, axis=0)) == 309
    known = set(map(tuple, bins.tolist()))
    low = np.floor(colours / 10) * 10
    for shift in ((0, 0), (0, 10), (10, 0), (10, 10)):  # every colour lies among four bins
        assert set(map(tuple, (low + shift).tolist())) <= known
    distance = KDTree(colours).query(bins, p=np.inf)[0]  # and every bin has a colour within a square of it
    assert distance.max() < 11  # 10, but for colours that the sample lacks


def test_fewer_and_more_bins():
    assert [len(gamut(side)) for side in (5, 10, 20, 60)] == [1053, 309, 101, 22]


def test_soft_encoding(colours):
    few = colours[:600].astype(np.float32)
    ab = torch.from_numpy(few).reshape(6, 10, 10, 2).permute(0, 3, 1, 2)
    index, weight = soft_encode(ab, BINS, 5, 5.0)
    distance, found = NearestNeighbors(n_neighbors=5).fit(BINS.numpy()).kneighbors(few)
    want = np.exp(-(distance**2) / (2 * 5.0**2))
    want /= want.sum(1, keepdims=True)
    np.testing.assert_array_equal(index.reshape(600, 5), found)
    np.testing.assert_allclose(weight.reshape(600, 5), want, atol=1e-4)


def test_soft_encoding_by_hand():
    bins = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    index, weight = soft_encode(torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1), bins, 2, 5.0)
    # Squared distances 9 and 49: exp(-9 / 50) = 0.83527 and exp(-49 / 50) = 0.37531, together 1.21058.
    assert index.flatten().tolist() == [0, 1]
    assert weight.flatten().tolist() == pytest.approx([0.68998, 0.31002], abs=1e-5)
    alone, one = soft_encode(torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1), bins, 1, 5.0)
    assert (alone.item(), one.item()) == (0, 1.0)
    assert nearest(torch.tensor([-2.0, 8.0]).reshape(1, 2, 1, 1), bins)[0].item() == 2


def test_rebalancing():
    counts = np.random.default_rng(0).integers(0, 1000, len(BINS)).astype(float)
    counts[:50] = 0
    bins, smooth = BINS.numpy().astype(float), np.zeros(len(BINS))
    for q, (centre, share) in enumerate(zip(bins, counts / counts.sum(), strict=True)):
        spread = np.exp(-((bins - centre) ** 2).sum(1) / (2 * 5.0**2))
        assert spread[q] == 1
        smooth += share * spread / spread.sum()
    want = 1 / (0.5 * smooth + 0.5 / len(bins))
    want /= (smooth * want).sum()
    got = rebalancing(torch.from_numpy(counts), BINS, 5.0, 0.5)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert smooth @ got.numpy() == pytest.approx(1, abs=1e-5)  # the mean weight of a pixel


def test_rare_colours_weigh_more_and_lambda_says_how_much():
    far = torch.tensor([[0.0, 0.0], [100.0, 0.0]])  # too far apart for the smoothing
    prior = torch.tensor([3.0, 1.0])
    # lambda 0: 1 / 0.75 and 1 / 0.25, scaled so that 0.75 w_1 + 0.25 w_2 = 1.
    torch.testing.assert_close(rebalancing(prior, far, 5.0, 0.0), torch.tensor([2 / 3, 2.0]))
    # lambda 0.5: 1 / 0.625 and 1 / 0.375, that is 1.6 and 2.6667, scaled by 1 / 1.86667.
    torch.testing.assert_close(rebalancing(prior, far, 5.0, 0.5), torch.tensor([6 / 7, 10 / 7]))
    torch.testing.assert_close(rebalancing(prior, far, 5.0, 1.0), torch.ones(2))


def test_annealed_mean():
    logits = torch.randn(2, len(BINS), 3, 4, generator=torch.Generator().manual_seed(0)) * 3
    for temperature in (1.0, 0.38):
        want = np.einsum("nqhw,qc->nchw", softmax(logits.numpy() / temperature, axis=1), BINS.numpy())
        np.testing.assert_allclose(annealed_mean(logits, BINS, temperature), want, atol=1e-3)
    mode = BINS[logits.argmax(1)].permute(0, 3, 1, 2)
    torch.testing.assert_close(annealed_mean(logits, BINS, 1e-3), mode)
