import numpy as np
import pytest
import torch
from scipy.stats import poisson

from miyagi.data.corruptions import noise
from miyagi.data.corruptions.draws import Draws
from miyagi.data.rng import Key

DRAWS = Draws(Key(0, 1), "x", torch.arange(400))
GREY = torch.full((400, 3, 32, 32), 102 / 255)


def test_gaussian_and_speckle():
    added = noise.gaussian(GREY, DRAWS, 0.1) - GREY
    assert abs(added.mean()) < 5e-4 and added.std() == pytest.approx(0.1, rel=0.01)
    assert (noise.speckle(GREY, DRAWS, 0.1) - GREY).std() == pytest.approx(0.04, rel=0.01)


def test_impulse():
    out = noise.impulse(GREY, DRAWS, 0.06)
    assert (out == 1).float().mean() == pytest.approx(0.03, rel=0.05)
    assert (out == 0).float().mean() == pytest.approx(0.03, rel=0.05)
    assert ((out == 0) | (out == 1) | (out == GREY)).all()


@pytest.mark.parametrize("photons", [50, 500])
def test_shot_is_scipy_s_quantile_of_the_same_uniform_draw(photons):
    x = (torch.arange(256).repeat(12).reshape(1, 3, 32, 32) / 255).contiguous()
    draws = Draws(Key(0, 1), "x", torch.tensor([3]))
    u = draws.uniform("noise", 3, 32, 32).numpy().astype(np.float64)
    # A draw that lies on a step belongs to the next count; none of these does.
    expected = poisson.ppf(u, x.numpy().astype(np.float64) * photons)
    expected[x.numpy() == 0] = 0
    found = noise.shot(x, draws, photons) * photons
    assert (found.numpy().round() == expected).mean() > 0.9995
    assert np.abs(found.numpy() - expected).max() <= 1.001


def test_shot_has_a_poisson_s_mean_and_variance():
    found = noise.shot(GREY, DRAWS, 75) * 75
    assert found.mean() == pytest.approx(30, rel=0.002) and found.var() == pytest.approx(30, rel=0.01)
