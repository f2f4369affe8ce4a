import copy

import pytest
import torch

from miyagi.nn.encoders.base import build
from miyagi.nn.sync_batch_norm import synchronize
from miyagi.train.recompute import recompute_blocks


def of(name):
    torch.manual_seed(0)
    half = {"name": "conv4", "width": 4}
    settings = {"conv4": half, "resnet18": {"name": "resnet18"}, "pair": {"name": "pair", "of": half}}[name]
    return build(settings, (0.5,) * 3, (0.3,) * 3).train()


def run(encoder):
    x = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = encoder(x)
    out.square().mean().backward()
    return [out.detach(), x.grad, *(p.grad for p in encoder.parameters()), *encoder.state_dict().values()]


@pytest.mark.parametrize("name", ["conv4", "resnet18", "pair"])
@pytest.mark.parametrize("synchronized", [False, True])
def test_the_same_bit_for_bit(name, synchronized):
    """Output, gradients, and the running statistics, which see each batch once."""
    plain = of(name)
    if synchronized:
        synchronize(plain, torch.device("cpu"))
    recomputing = copy.deepcopy(plain)
    recompute_blocks(recomputing)
    assert recomputing.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(run(plain), run(recomputing), strict=True))


def saved(encoder):
    """Bytes that the forward pass leaves for the backward pass, weights apart."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        encoder(torch.rand(6, 3, 32, 32))
    return sum(size for place, size in kept.items() if place not in weights)


def test_less_is_kept():
    encoder = of("resnet18")
    before = saved(encoder)
    recompute_blocks(encoder)
    assert saved(encoder) < before / 3


def test_each_block_runs_twice_where_there_is_a_gradient():
    encoder, runs = of("conv4"), []
    recompute_blocks(encoder)
    for block in encoder.blocks.values():
        block[0].register_forward_hook(lambda *_: runs.append(1))
    run(encoder)
    assert len(runs) == 8
    with torch.no_grad():
        encoder(torch.rand(2, 3, 32, 32))
    encoder.requires_grad_(False)
    encoder(torch.rand(2, 3, 32, 32))
    assert len(runs) == 16


def test_the_monitor_sees_the_running_statistics():
    plain = of("conv4")
    recomputing = copy.deepcopy(plain)
    recompute_blocks(recomputing)
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(plain.eval()(x), recomputing.eval()(x))
