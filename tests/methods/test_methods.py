"""What holds for every method; tests of one method's own target and state stand in its own file."""

import copy

import pytest
import torch

from miyagi.methods.base import build
from miyagi.params import views
from miyagi.registry import METHODS
from miyagi.settings import Pretrain
from miyagi.train.loop import optimizer

TRAINED = [name for name in METHODS.entries if METHODS.settings(name).trains]
SMALL = {"moco": {"queue": 512, "momentum": 0.99, "recipe": "simclr_small"}}


@pytest.fixture(params=TRAINED)
def method(request, encoder, info):
    torch.manual_seed(0)
    return build(request.param, SMALL.get(request.param, {}), encoder, info)


@pytest.fixture
def recipes(method):
    name = type(method).__module__.rpartition(".")[2]
    return views(METHODS.settings(name)().recipe, {}, "test")


def step(method, optimiser, batch, progress=0.5):
    logged = method(batch, progress)
    optimiser.zero_grad()
    logged["loss"].backward()
    method.after_backward(progress)
    optimiser.step()
    method.after_step(progress)
    return float(logged["loss"].detach())


def test_a_few_steps_lower_the_loss(method, recipes, make_batch):
    optimiser = optimizer(method, Pretrain())
    for group in optimiser.param_groups:
        group["lr"] = 3e-3
    losses = [step(method, optimiser, make_batch(method, recipes, i)) for i in range(64)]
    # From the 16th step on: a queue is full of random keys, easy negatives, before.
    assert sum(losses[-8:]) < 0.98 * sum(losses[16:24])


def test_the_embedding_does_not_collapse(method, recipes, make_batch):
    from miyagi.metrics.collapse import embedding_std

    optimiser = optimizer(method, Pretrain())
    for i in range(10):
        step(method, optimiser, make_batch(method, recipes, i))
    method.eval()
    with torch.no_grad():
        features = method.encoder(make_batch(method, recipes).views[0])
    assert embedding_std(features.numpy()) > 0.01


def test_the_loss_is_what_a_resume_makes_of_it(method, recipes, make_batch):
    """All that a step depends on is in the state: a copy that loads it goes on with the same numbers."""
    optimiser = optimizer(method, Pretrain())
    for i in range(3):
        step(method, optimiser, make_batch(method, recipes, i))
    state, optimiser_state = copy.deepcopy(method.state_dict()), copy.deepcopy(optimiser.state_dict())
    first = [step(method, optimiser, make_batch(method, recipes, i)) for i in (3, 4, 5)]
    method.load_state_dict(state)
    again = optimizer(method, Pretrain())
    again.load_state_dict(optimiser_state)
    assert [step(method, again, make_batch(method, recipes, i)) for i in (3, 4, 5)] == first


def test_every_parameter_has_exactly_one_group(method):
    groups = method.parameter_groups()
    grouped = [id(p) for group in groups for p in group["params"]]
    trained = [p for p in method.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(id(p) for p in trained)
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert groups[1]["weight_decay"] == 0


def test_the_gradient_reaches_encoder_and_head(method, recipes, make_batch):
    method(make_batch(method, recipes), 0.0)["loss"].backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_the_floor_does_not_train(encoder, info):
    floor = build("random", {}, encoder, info)
    assert list(floor.head) == []
    with pytest.raises(TypeError, match="does not train"):
        floor(None, 0.0)
