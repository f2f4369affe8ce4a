"""Against torch's own four layers in double precision, which are another way to the same numbers."""

import copy

import pytest
import torch
from torch import nn

from miyagi.nn import conv_norm_pool
from miyagi.nn.conv_norm_pool import ConvNormPool, patch_moments
from miyagi.nn.encoders.base import Encoder
from miyagi.train.recompute import recompute_blocks


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    monkeypatch.setattr(conv_norm_pool, "LEAST", 0)


CHANNELS = 32  # more than the 27 values of a patch of 3


def make(inputs, channels=CHANNELS, **settings):
    torch.manual_seed(0)
    block = ConvNormPool(inputs, channels, **settings).to(memory_format=torch.channels_last)
    with torch.no_grad():
        block[1].weight.copy_(torch.linspace(-1.5, 1.5, channels))
        block[1].bias.normal_()
    return block


def images(n, channels, height, width, gradient=False):
    x = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_(gradient)


def trained(block, x):
    """Output, gradients of all parameters and of `x`, and running statistics, after a step of `block` in training."""
    y = block.train()(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype))
    found = {"y": y.detach(), **{name: p.grad for name, p in block.named_parameters()}, **dict(block.named_buffers())}
    return found if x.grad is None else {**found, "x": x.grad}


def in_double(block):
    return nn.Sequential(*copy.deepcopy(block).double())


FIRST, ODD_FIRST, INNER, ODD = (3, 16, 12, False), (3, 13, 16, False), (5, 16, 12, True), (CHANNELS, 9, 7, True)


@pytest.mark.parametrize(("inputs", "height", "width", "gradient"), [FIRST, ODD_FIRST, INNER, ODD])
@pytest.mark.parametrize("part", [conv_norm_pool.PART, 3 * CHANNELS * 16 * 12])
def test_a_fused_step_is_that_of_the_four_layers(monkeypatch, inputs, height, width, gradient, part):
    monkeypatch.setattr(conv_norm_pool, "PART", part)  # at once, or three images at a time and one left over
    block, x = make(inputs), images(7, inputs, height, width, gradient)
    want = trained(in_double(block), x.detach().double().requires_grad_(gradient))
    found = trained(block, x)
    assert found.keys() == want.keys()
    for name in found:
        largest = want[name].abs().max().item()
        torch.testing.assert_close(found[name].to(want[name].dtype), want[name], rtol=0, atol=5e-6 * largest, msg=name)
    assert found["y"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("inputs", "gradient"), [(3, False), (4, True)])
def test_of_equal_values_the_first_takes_the_gradient(inputs, gradient):
    block, x = make(inputs), torch.zeros(4, inputs, 8, 8)
    x[2:] = 1.0  # plain surfaces, whose every inner window holds four equal values
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_(gradient)
    want = trained(in_double(block), x.detach().double().requires_grad_(gradient))
    for name, value in trained(block, x).items():
        torch.testing.assert_close(value.to(want[name].dtype), want[name], rtol=1e-4, atol=1e-4, msg=name)


def test_statistics_of_a_filter_that_sees_little():
    """A ramp from 1 to 0 by differences of neighbours: in each row 63 of 1/63 and a 0, so 1/64^2/63 is their variance.

    That is a hundred-thousandth of what S is made of, and would drown in rounding were S summed in fp32.
    """
    block = make(3)
    with torch.no_grad():
        block[0].weight.zero_()
        block[0].weight[0, 0, 1, 1:] = torch.tensor([1.0, -1.0])
    block[1].momentum = 1.0
    block.train()(torch.linspace(1, 0, 64).expand(32, 3, 64, 64))
    count = 32 * 64 * 64
    assert block[1].running_mean[0].item() == pytest.approx(1 / 64, rel=1e-5)
    assert block[1].running_var[0].item() == pytest.approx(count / (count - 1) / 64**2 / 63, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_running_statistics_move_as_torchs(momentum):
    block = make(3)
    block[1].momentum = momentum
    plain = in_double(block)
    for step in range(3):
        for each in (block, plain):
            each.train()(images(2 + step, 3, 8, 8).to(next(each.parameters()).dtype))
    for name, value in block.named_buffers():
        want = plain.get_buffer(name)
        torch.testing.assert_close(value.to(want.dtype), want, rtol=1e-5, atol=1e-6, msg=name)


def test_no_running_statistics_where_none_are_kept():
    block = make(3)
    block[1] = nn.BatchNorm2d(CHANNELS, track_running_stats=False)
    torch.testing.assert_close(
        block.train()(images(4, 3, 8, 8)).double(), in_double(block).train()(images(4, 3, 8, 8).double()),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_moments_are_those_of_the_patches(monkeypatch, channels):
    monkeypatch.setattr(conv_norm_pool, "PATCHES", 2 * 4 * channels * 6 * 10)  # two images at a time, and one
    x = images(5, channels, 6, 10) - 0.3
    patches = nn.functional.unfold(x.double(), 3, padding=1)  # N x (channel, row, column) x positions
    patches = patches.unflatten(1, (channels, 9)).transpose(1, 2).flatten(1, 2).transpose(1, 2).flatten(0, 1)
    sums, products = patch_moments(x)
    torch.testing.assert_close(sums, patches.sum(0))
    torch.testing.assert_close(products, patches.T @ patches)


def full_maps(block, x):
    """How many maps of the convolution's size wait for the backward pass."""
    shapes, size = [], (len(x), CHANNELS, *x.shape[2:])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
        block.train()(x)
    return shapes.count(torch.Size(size))


def test_a_first_layer_keeps_no_map_of_full_size_and_an_inner_one_its_convolutions():
    first, inner = images(4, 3, 16, 16), images(4, 5, 16, 16, gradient=True)
    assert full_maps(make(3), first) == 0 and full_maps(make(3, fused=False), first) == 2
    assert full_maps(make(5), inner) == 1 and full_maps(make(5, fused=False), inner) == 2


def autocast(block, x):
    with torch.autocast("cpu", torch.bfloat16):
        return block(x)


def frozen(block, x):
    return block.eval()(x)


def unfused(block, x):
    block.fused = False
    return block(x)


def small(block, x):
    conv_norm_pool.LEAST = x.shape[0] * CHANNELS * 16 * 16 + 1
    return block(x)


def another_norm(block, x):
    class Other(nn.BatchNorm2d):
        pass

    other = Other(CHANNELS)
    other.load_state_dict(block[1].state_dict())
    block[1] = other
    return block(x)


@pytest.mark.parametrize("run", [autocast, frozen, unfused, small, another_norm])
def test_elsewhere_the_four_layers_follow_one_another(run):
    block = make(3).train()
    found = run(copy.deepcopy(block), images(4, 3, 16, 16))
    want = run(nn.Sequential(*copy.deepcopy(block)), images(4, 3, 16, 16))
    assert torch.equal(found, want)


def test_small_and_large_batches_before_one_backward_pass(monkeypatch):
    block = make(3).train()
    plain = in_double(block)
    monkeypatch.setattr(conv_norm_pool, "LEAST", 6 * CHANNELS * 16 * 16)
    batches = [images(n, 3, 16, 16) for n in (2, 6, 3, 7)]
    for each in (block, plain):
        sum(each(x.to(next(each.parameters()).dtype)).square().mean() for x in batches).backward()
    for a, b in zip(block.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-5)


def test_run_again_on_the_way_back_it_gives_the_same_bits():
    class Two(Encoder):
        def __init__(self):
            super().__init__([0.5] * 3, [0.2] * 3)
            self.blocks = nn.ModuleDict({"first": make(3), "second": make(CHANNELS)})

    plain = Two()
    recomputed = copy.deepcopy(plain)
    recompute_blocks(recomputed)
    want, found = (trained(each, images(5, 3, 16, 16)) for each in (plain, recomputed))
    assert want.keys() == found.keys() and all(torch.equal(want[name], found[name]) for name in want)


@pytest.mark.parametrize(("inputs", "gradient"), [(3, False), (CHANNELS, True)])
def test_the_same_bits_again(inputs, gradient):
    first, second = (trained(make(inputs), images(9, inputs, 16, 16, gradient)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_have_the_names_they_always_had():
    assert list(make(3).state_dict()) == list(
        nn.Sequential(nn.Conv2d(3, CHANNELS, 3, bias=False), nn.BatchNorm2d(CHANNELS)).state_dict()
    )
