"""All 19 at once: what holds for each of them."""

import pytest
import torch

from miyagi.data.corruptions import COMMON, EXTRA, SEVERITIES, TABLE, corrupt


def test_the_benchmark_s_names():
    assert (len(COMMON), len(EXTRA), len(TABLE)) == (15, 4, 19)
    assert set(COMMON) | set(EXTRA) == set(TABLE)
    assert all(len(constants) == len(SEVERITIES) for _, constants in TABLE.values())


@pytest.mark.parametrize("name", TABLE)
def test_an_image_is_corrupted_for_itself_and_always_alike(photos, name):
    index = torch.arange(len(photos))
    for severity in SEVERITIES:
        out = corrupt(name, severity, photos, index)
        assert out.shape == photos.shape and torch.isfinite(out).all()
        assert out.min() >= 0 and out.max() <= 1
        assert torch.allclose(out * 255, (out * 255).round(), atol=1e-4)
        assert (out - photos).abs().mean() > 0.002
        part = corrupt(name, severity, photos[[7, 2]], torch.tensor([7, 2]))
        # Products may be summed in another order: at most one level of 255 apart, and seldom.
        apart = (part - out[[7, 2]]).abs()
        assert apart.max() < 1.01 / 255 and (apart > 1e-6).float().mean() < 0.01


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"glass_blur", "elastic_transform", "saturate", "spatter"}))
def test_the_most_severe_is_farther_away_than_the_mildest(photos, name):
    """The others change their kind with the severity, in the benchmark as here."""
    index = torch.arange(len(photos))
    mild, severe = (float((corrupt(name, s, photos, index) - photos).abs().mean()) for s in (1, 5))
    assert severe > 1.15 * mild


@pytest.mark.parametrize(
    "name", [n for n in TABLE if "noise" in n or n in ("snow", "fog", "frost", "spatter", "motion_blur", "glass_blur", "elastic_transform")]
)  # fmt: skip
def test_draws_differ_by_index_and_severity(photos, name):
    twice = photos[:1].expand(2, -1, -1, -1)
    one, other = corrupt(name, 3, twice, torch.tensor([0, 1]))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("side", [16, 48])
def test_other_sizes(photos, side):
    x = torch.nn.functional.interpolate(photos[:3], size=side, mode="bilinear").contiguous()
    for name in TABLE:
        out = corrupt(name, 5, x, torch.arange(3))
        assert out.shape == x.shape and torch.isfinite(out).all()
