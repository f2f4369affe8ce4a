"""Against torchvision's functions on the same arguments."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from miyagi.data.geometry import cutout, resample, rotate, shift

N, S = 16, 32
STRAIGHT = torch.zeros(N, dtype=torch.bool)


@pytest.mark.parametrize(
    ("box", "size"),
    [((0, 0, 32, 32), 32), ((3, 5, 20, 11), 24), ((3, 5, 20, 11), 8), ((1, 2, 4, 30), 32), ((31, 0, 1, 2), 48)],
)
def test_resample_equals_torchvision(fields, box, size):
    got = resample(fields, torch.tensor([box]).expand(N, 4), size, STRAIGHT)
    torch.testing.assert_close(
        got, reference.resized_crop(fields, *box, [size, size], antialias=True), atol=1e-5, rtol=0
    )


def test_resample_of_what_is_no_square(fields):
    wide, box = fields[:, :, 4:25], (2, 3, 17, 28)
    got = resample(wide, torch.tensor([box]).expand(N, 4), 16, STRAIGHT)
    torch.testing.assert_close(got, reference.resized_crop(wide, *box, [16, 16], antialias=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [16, 40])
def test_resample_mirrors(fields, size):
    box = torch.tensor([[3, 5, 20, 11]]).expand(N, 4)
    every_other = torch.arange(N) % 2 == 1
    plain, got = resample(fields, box, size, STRAIGHT), resample(fields, box, size, every_other)
    torch.testing.assert_close(got[1::2], plain[1::2].flip(3))
    assert torch.equal(got[::2], plain[::2])


@pytest.mark.parametrize("degrees", [-180.0, -33.0, 0.0, 7.5, 90.0])
@pytest.mark.parametrize("width", [32, 21])
def test_rotate_equals_torchvision(fields, degrees, width):
    x = fields[..., :width]
    got = rotate(x, torch.full((N,), degrees))
    want = reference.rotate(x, degrees, reference.InterpolationMode.BILINEAR)
    assert (got - want).abs().mean() < 1e-4
    torch.testing.assert_close(got, want, atol=2e-3, rtol=0)


def test_rotate_turns_each_by_its_own_angle(fields):
    angles = torch.linspace(-45, 45, N)
    together = rotate(fields, angles)
    for i in range(N):
        assert torch.equal(rotate(fields[i : i + 1], angles[i : i + 1])[0], together[i])


def test_shift_equals_a_crop_of_the_padded_image(fields):
    draws = torch.rand(N, 2, generator=torch.Generator().manual_seed(0))
    got = shift(fields[:, :, :, :20], 4, draws)
    padded = reference.pad(fields[:, :, :, :20], [4], padding_mode="reflect")
    for i, (top, left) in enumerate((draws * 9).to(torch.int64).tolist()):
        assert torch.equal(got[i], padded[i, :, top : top + 32, left : left + 20])


@pytest.mark.parametrize(
    ("side", "middle", "rectangle"),
    [
        (0.5, (0.5, 0.5), (8, 8, 16, 16)),
        (0.25, (0.0, 0.999), (0, 27, 4, 5)),  # half of it is over the border, as in DeVries and Taylor
        (0.0, (0.5, 0.5), (16, 16, 0, 0)),
        (1.0, (0.5, 0.25), (0, 0, 32, 24)),
    ],
)
def test_cutout_equals_torchvisions_erase(fields, side, middle, rectangle):
    colour = torch.tensor([0.2, 0.5, 0.7])
    got = cutout(fields, torch.full((N,), side), torch.tensor([middle]).expand(N, 2), colour.expand(N, 3))
    torch.testing.assert_close(got, reference.erase(fields, *rectangle, colour[:, None, None]))
