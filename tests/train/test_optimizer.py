import pytest
import torch

from miyagi.methods.base import build
from miyagi.settings import Pretrain
from miyagi.train.optimizer import optimizer


@pytest.fixture
def method(encoder, info):
    torch.manual_seed(0)
    return build("simclr", {}, encoder, info)


def fill(method, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in method.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_one_kernel_updates_all(method, name):
    made = optimizer(method, Pretrain(optimizer=name))
    assert all(group["fused"] for group in made.param_groups)


@pytest.mark.parametrize("decay", [1e-4, 0.0])
def test_lars_by_hand(method, decay):
    """Matrices by the paper's rule, whatever their decay; biases and BatchNorm by plain SGD, without decay."""
    lr, momentum, trust = 0.3, 0.9, 0.001
    made = optimizer(method, Pretrain(optimizer="lars", lr=lr, momentum=momentum, weight_decay=decay))
    want = {p: p.detach().clone() for p in method.parameters()}
    buffers = {p: torch.zeros_like(p) for p in want}
    for step in range(2):
        fill(method, step)
        for p, w in want.items():
            gradient = p.grad.clone()
            if p.ndim > 1:
                ratio = trust * w.norm() / (p.grad.norm() + decay * w.norm())
                gradient = ratio * (p.grad + decay * w)
            buffers[p] = momentum * buffers[p] + gradient if step else gradient
            w -= lr * buffers[p]
        made.step()
    for p, w in want.items():
        torch.testing.assert_close(p.detach(), w, rtol=1e-5, atol=1e-7)


def test_lars_goes_on_where_it_was(method):
    import copy

    made = optimizer(method, Pretrain(optimizer="lars", lr=0.3))
    fill(method, 0)
    made.step()
    weights, state = copy.deepcopy(method.state_dict()), copy.deepcopy(made.state_dict())
    fill(method, 1)
    made.step()
    want = copy.deepcopy(method.state_dict())
    method.load_state_dict(weights)
    again = optimizer(method, Pretrain(optimizer="lars", lr=0.3))
    again.load_state_dict(state)
    fill(method, 1)
    again.step()
    assert all(torch.equal(value, want[name]) for name, value in method.state_dict().items())
