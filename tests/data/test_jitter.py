"""Against torchvision's functions on the same arguments."""

from itertools import permutations

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from miyagi.data.jitter import active, factors, jitter_, passes_before_hue, shift_hue_
from miyagi.settings import Jitter

N = 16
STEPS = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue)
FACTORS = (1.3, 0.6, 1.7, -0.07)
KINDS = [0, 1, 2, 3]


def turns(order):
    """When each operation has its turn, for an order like (3, 0, 1, 2)."""
    return torch.tensor(order).argsort()[None].expand(N, 4)


def jittered(x, order, kinds=KINDS):
    """All of x with the same factors in the same order."""
    turn = turns(order)
    before = passes_before_hue(kinds, turn, torch.ones(N, dtype=torch.bool))
    return jitter_(x.clone(), kinds, torch.tensor(FACTORS).expand(N, 4), turn, before)


@pytest.mark.parametrize("shift", [-0.5, -0.13, 0.0, 0.2, 0.5])
def test_hue_equals_torchvision(fields, shift):
    got = shift_hue_(fields.clone(), torch.full((N,), shift))
    torch.testing.assert_close(got, reference.adjust_hue(fields, shift), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.4])
def test_hue_of_corner_colours(shift):
    # Black, white, greys, the primaries and what lies between two of them: where the hue's formula changes its branch.
    levels = torch.tensor([0.0, 0.3, 0.7, 1.0])
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 8, 8).contiguous()
    torch.testing.assert_close(
        shift_hue_(x.clone(), torch.tensor([shift])), reference.adjust_hue(x, shift), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("order", list(permutations(range(4)))[::3])
def test_jitter_equals_torchvision_in_any_order(fields, order):
    want = fields
    for step in order:
        want = STEPS[step](want, FACTORS[step])
    got = jittered(fields, order)
    assert (got - want).abs().mean() < 1e-5
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [0, 1], [2, 3], []])
def test_what_is_left_out_is_left_out(fields, kinds):
    order = (2, 0, 3, 1)
    want = fields
    for step in (step for step in order if step in kinds):
        want = STEPS[step](want, FACTORS[step])
    torch.testing.assert_close(jittered(fields, order, kinds), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("off", ["brightness", "contrast", "saturation", "hue"])
def test_a_strength_of_zero_leaves_an_operation_out(off):
    settings = Jitter(**{"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1} | {off: 0.0})
    names = ["brightness", "contrast", "saturation", "hue"]
    assert [names[kind] for kind in active(settings)] == [name for name in names if name != off]


def test_each_sample_has_its_own_order_and_may_be_left_alone(fields):
    orders = torch.tensor(list(permutations(range(4))))[torch.arange(N) * 7 % 24]
    chosen = torch.arange(N) % 5 != 2
    settings = Jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    drawn = factors(settings, torch.rand(N, 4, generator=torch.Generator().manual_seed(0)))
    turn = orders.argsort(1)
    before, rows = passes_before_hue(KINDS, turn, chosen).sort(stable=True)
    together = jitter_(fields[rows].clone(), KINDS, drawn[rows], turn[rows], before)
    for got, i in zip(together, rows.tolist(), strict=True):
        want = fields[i]
        for step in orders[i].tolist() if chosen[i] else []:
            want = STEPS[step](want, float(drawn[i, step]))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_factors_have_their_bounds():
    ends = torch.tensor([[0.0] * 4, [1.0] * 4])
    brightness, contrast, saturation, hue = factors(
        Jitter(brightness=0.4, contrast=1.0, saturation=0.0, hue=0.1), ends
    ).T
    torch.testing.assert_close(brightness, torch.tensor([0.6, 1.4]))
    torch.testing.assert_close(contrast, torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(saturation, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(hue, torch.tensor([-0.1, 0.1]))
