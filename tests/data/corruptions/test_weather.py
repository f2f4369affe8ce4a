import numpy as np
import pytest
import torch

from miyagi.data.corruptions import weather
from miyagi.data.corruptions.draws import Draws
from miyagi.data.rng import Key


@pytest.fixture
def draws(photos):
    return Draws(Key(0, 1), "x", torch.arange(len(photos)))


def test_plasma_is_rough_or_smooth_and_fills_its_range(draws):
    rough, smooth = (weather.plasma(draws, "x", 32, decay) for decay in (1.5, 3.0))
    for height in (rough, smooth):
        assert height.shape == (20, 1, 32, 32)
        assert (height.amin((1, 2, 3)) == 0).all() and (height.amax((1, 2, 3)) == 1).all()
    slopes = [float((h[..., 1:] - h[..., :-1]).abs().mean()) for h in (rough, smooth)]
    assert slopes[0] > 2 * slopes[1]
    assert weather.plasma(draws, "x", 20, 2.0).shape == (20, 1, 20, 20)  # cut from 32


def test_plasma_by_hand():
    """A torus of 2 x 2: each point is the mean of its neighbours plus 100^2 u."""
    draws = Draws(Key(0, 1), "x", torch.tensor([5]))
    u = {name: 2 * draws.uniform(f"m/2/{name}", 1, 1).item() - 1 for name in ("centre", "row", "column")}
    centre = 1e4 * u["centre"]
    points = np.array([[0, centre / 2 + 1e4 * u["row"]], [centre / 2 + 1e4 * u["column"], centre]])
    expected = (points - points.min()) / (points.max() - points.min())
    assert np.allclose(weather.plasma(draws, "m", 2, 2.0)[0, 0], expected, atol=1e-5)


def test_fog_keeps_the_brightest_and_veils_the_darkest(photos, draws):
    out = weather.fog(photos, draws, 1.5, 1.75)
    assert (out.amax((1, 2, 3)) <= photos.amax((1, 2, 3)) + 1e-5).all()
    assert out.std() < photos.std()
    grey = weather.fog(torch.full((20, 3, 32, 32), 0.5), draws, 1.0, 2.0)
    plasma = weather.plasma(draws, "fog", 32, 2.0)
    assert torch.allclose(grey, ((0.5 + plasma) * 0.5 / 1.5).expand_as(grey), atol=1e-6)


def test_frost_is_a_texture_in_blue(draws):
    black = torch.zeros(20, 3, 32, 32)
    ice = weather.frost(black, draws, 0.75, 0.45)
    assert ice.min() >= 0 and ice.max() <= 0.45 + 1e-6
    assert (ice[:, 2] >= ice[:, 0]).all() and ice.std() > 0.05


def test_snow_falls_on_both_halves(draws):
    black = torch.zeros(20, 3, 32, 32)
    image, flakes = 0.95, weather.snow(black, draws, 0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95) - (1 - 0.95) * 0.5
    assert torch.allclose(flakes, flakes.flip(2, 3), atol=1e-6)
    assert torch.allclose(flakes[:, 0], flakes[:, 2], atol=1e-6)
    assert 0 < (flakes > 0.05).float().mean() < 0.5
    still = weather.snow(black + 0.4, draws, -9.0, 0.1, 1.0, 0.6, 8, 3.0, image)  # no flakes: only paler
    assert torch.allclose(still, torch.tensor(image * 0.4 + (1 - image) * 1.1), atol=1e-3)


def test_mud_hides_and_water_brightens(photos, draws):
    wet = weather.spatter(photos, draws, 0.65, 0.3, 1.0, 0.69, 0.5, False)
    assert (wet >= photos - 1e-6).all() and (wet > photos + 0.05).any()
    muddy = weather.spatter(photos, draws, 0.65, 0.1, 0.5, 0.68, 0.6, True)
    mud = torch.tensor(weather.MUD)[:, None, None]
    changed = (muddy - photos).abs().amax(1) > 1e-6
    assert 0.005 < changed.float().mean() < 0.6
    # Where there is mud, it hides at least four fifths.
    left = ((muddy - mud) / torch.where(photos == mud, 1, photos - mud)).permute(0, 2, 3, 1)[changed]
    assert left.abs().max() < 0.2001
