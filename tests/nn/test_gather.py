"""Gathering, and BatchNorm over all processes, in two real ones; the references are one process with all images."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from miyagi.nn.gather import average_, gather, gather_detached, rank, world_size
from miyagi.nn.sync_batch_norm import AllReduceBatchNorm, keep_local, local_statistics, synchronize
from tests.processes import together

WORLD, EACH = 2, 6
CPU = torch.device("cpu")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 5), nn.BatchNorm1d(5, affine=False, momentum=None),
    )  # fmt: skip


def images():
    # Of different means and spreads, so that half of them says little of all.
    x = torch.randn(WORLD * EACH, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return x * torch.linspace(0.5, 3, len(x))[:, None, None, None] + torch.arange(len(x))[:, None, None, None]


def pull(z):
    """Any loss that looks at all pairs, of all images."""
    return torch.logsumexp((z @ z.T).flatten() / 5, 0)


def squares(z):
    return z.square().mean() + z[:, 0].exp().mean()


def own_pull(z, everybody):
    """Its mean over processes is what `pull` would be if it were a mean over images."""
    return torch.logsumexp(z @ everybody.T / 5, 1).mean()


def train(model, x, loss):
    """Two steps; outputs, input and weight gradients of the last, and the state."""
    for step in range(2):
        model.zero_grad()
        x = x.detach().requires_grad_()
        out = model(x)
        loss(out).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.01 * (step + 1)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return {"out": out.detach(), "x": x.grad, "gradients": gradients, "state": copy.deepcopy(model.state_dict())}


def work(number):
    mine = slice(EACH * number, EACH * (number + 1))
    found = {"who": (rank(), world_size())}
    z = torch.arange(12.0).reshape(2, 6)[number : number + 1].requires_grad_()
    everybody = gather(z)
    # Each process weighs the gathered numbers by its own weight: the gradient is the sum of both.
    (everybody * (number + 1)).sum().backward()
    found["gathered"], found["gradient"] = everybody.detach(), z.grad
    detached = gather_detached(torch.tensor([[number, 7]]))
    found["integers"], found["detached"] = detached, gather_detached(z).requires_grad
    first, second = torch.full((2, 2), float(number)), torch.full((3,), number * 4.0, dtype=torch.float64)
    average_([first, second])
    found["averages"] = (first, second)
    model = network()
    synchronize(model, CPU)
    found["kinds"] = [type(layer).__name__ for layer in model]
    found["batch norm"] = train(model, images()[mine], squares)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images()[mine])
    squares(half.float()).backward()
    found["half"] = half.detach()
    model.eval()
    found["eval"] = model(images()[mine]).detach()
    for name, loss in (("own", lambda z: own_pull(z, gather(z))), ("all", lambda z: pull(gather(z)))):
        model = network()
        synchronize(model, CPU)
        found[name] = train(model, images()[mine], loss)
    model = network()
    keep_local(model)
    synchronize(model, CPU)
    found["local kinds"] = [type(layer).__name__ for layer in model]
    model(images()[mine])
    found["local before"] = [x.clone() for x in local_statistics(model)]
    average_(local_statistics(model))
    found["local after"] = [x.clone() for x in local_statistics(model)]
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return together(tmp_path_factory.mktemp("gather"), WORLD, work)


def test_one_process_is_the_identity():
    x = torch.randn(3, 2, requires_grad=True)
    assert gather(x) is x
    assert gather_detached(x).data_ptr() == x.data_ptr() and not gather_detached(x).requires_grad
    assert (rank(), world_size()) == (0, 1)
    values = torch.ones(2)
    average_([values])
    assert torch.equal(values, torch.ones(2))


def test_gathered_rank_by_rank_with_the_sum_of_the_gradients(both):
    assert [found["who"] for found in both] == [(0, 2), (1, 2)]
    for found in both:
        assert torch.equal(found["gathered"], torch.arange(12.0).reshape(2, 6))
        assert torch.equal(found["gradient"], torch.full((1, 6), 3.0))
        assert found["integers"].tolist() == [[0, 7], [1, 7]]
        assert not found["detached"]


def test_averages(both):
    for found in both:
        first, second = found["averages"]
        assert torch.equal(first, torch.full((2, 2), 0.5)) and first.dtype == torch.float32
        assert torch.equal(second, torch.full((3,), 2.0, dtype=torch.float64))


def close(both, want, key, rtol=1e-4):
    parts = [found[key] for found in both]
    atol = rtol * 0.1
    torch.testing.assert_close(torch.cat([part["out"] for part in parts]), want["out"], rtol=rtol, atol=atol)
    # The loss of the whole batch is the mean of two: an image's gradient is half, a weight's the mean.
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]) / WORLD, want["x"], rtol=rtol, atol=atol)
    for name, gradient in want["gradients"].items():
        mean = sum(part["gradients"][name] for part in parts) / WORLD
        torch.testing.assert_close(mean, gradient, rtol=rtol, atol=atol, msg=name)
    for name, value in want["state"].items():
        assert torch.equal(parts[0]["state"][name], parts[1]["state"][name]), name
        torch.testing.assert_close(parts[0]["state"][name], value, rtol=rtol, atol=atol, msg=name)


def test_batch_norm_is_that_of_one_process(both):
    model = network()
    want = train(model, images(), squares)
    assert both[0]["kinds"].count("AllReduceBatchNorm") == 2
    close(both, want, "batch norm")
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat([found["half"] for found in both]), half.detach(), rtol=0.02, atol=0.02)
    model.eval()
    evaluated = torch.cat([found["eval"] for found in both])
    torch.testing.assert_close(evaluated, model(images()).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "mean"), [("own", True), ("all", False)])
def test_the_gradient_needs_no_factor(both, name, mean):
    """A process's own anchors among all, or everything twice: the averaged gradient is that of the whole batch."""
    want = train(network(), images(), (lambda z: own_pull(z, z)) if mean else pull)
    close(both, want, name)


def test_layers_that_stay_local(both):
    assert "AllReduceBatchNorm" not in both[0]["local kinds"]
    first, second = (found["local before"] for found in both)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(first) == 4
    for a, b, after, other in zip(first, second, both[0]["local after"], both[1]["local after"], strict=True):
        torch.testing.assert_close(after, (a + b) / 2)
        assert torch.equal(after, other)


def test_parameters_and_buffers_stay_the_same_objects():
    model = network()
    before = {name: id(x) for name, x in model.state_dict(keep_vars=True).items()}
    synchronize(model, CPU)
    assert {name: id(x) for name, x in model.state_dict(keep_vars=True).items()} == before


def test_alone_it_is_batch_norm():
    layer, reference = AllReduceBatchNorm(3), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(layer(x), reference(x))
    assert torch.equal(layer.running_var, reference.running_var)
    assert torch.equal(layer.eval()(x), F.batch_norm(x, reference.running_mean, reference.running_var))
