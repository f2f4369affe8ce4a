import copy
import math

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity

from miyagi.methods.byol import BYOL, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import Crop, Head, Pretrain, ViewRecipe
from miyagi.train.loop import optimizer

RECIPE = RECIPES["simclr_small"].views
MILD = (ViewRecipe(crop=Crop(scale=(0.5, 1.0))),)
"""A few steps are too few for the paper's."""
SMALL = Settings(head=Head(width=64, out=32, batch_norm=True), predictor_width=64)


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


@pytest.fixture
def method(encoder, info):
    torch.manual_seed(0)
    return BYOL(SMALL, encoder, info)


def test_the_loss_is_symmetric_and_each_view_has_its_own_batch(method, make_batch):
    sizes = []
    method.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    batch = make_batch(method, RECIPE, n=24)
    logged = method(batch, 0.0)
    assert sizes == [24, 24]
    p = [method.predictor(method.head(method.encoder(view))) for view in batch.views]
    z = [method.target_head(method.target_encoder(view)) for view in batch.views]
    theirs = NegativeCosineSimilarity()
    torch.testing.assert_close(logged["loss"], 4 + 2 * theirs(p[0], z[1]) + 2 * theirs(p[1], z[0]))


def test_the_target_starts_as_the_online_network_and_takes_no_gradient(method, make_batch):
    target = [*method.target_encoder.parameters(), *method.target_head.parameters()]
    online = [*method.encoder.parameters(), *method.head.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(target, online, strict=True))
    method(make_batch(method, RECIPE, n=24), 0.0)["loss"].backward()
    assert all(p.grad is None for p in target)
    assert all(p.grad.abs().sum() > 0 for p in (*online, *method.predictor.parameters()))


@pytest.mark.parametrize(("progress", "m"), [(0.0, 0.996), (0.25, 1 - 0.004 * (1 + math.sqrt(0.5)) / 2), (0.5, 0.998)])
def test_the_target_follows(method, progress, m):
    with torch.no_grad():
        for p in (*method.encoder.parameters(), *method.head.parameters()):
            p.add_(1.0)
    pairs = [(method.target_encoder, method.encoder), (method.target_head, method.head)]
    before = copy.deepcopy([list(target.parameters()) for target, _ in pairs])
    method.after_step(progress)
    for (target, online), old in zip(pairs, before, strict=True):
        for got, was, new in zip(target.parameters(), old, online.parameters(), strict=True):
            torch.testing.assert_close(got, m * was + (1 - m) * new)
            assert not torch.equal(got, was)


def train(method, make_batch, shuffle=False, steps=16):
    """The mean loss of the last 4 steps, and output_std of the last one."""
    optimiser = optimizer(method, Pretrain())
    losses = []
    for group in optimiser.param_groups:
        group["lr"] = 3e-3
    for i in range(steps):
        batch = make_batch(method, MILD, i, n=64)
        if shuffle:
            batch.views[1] = batch.views[1].roll(1, 0)
        logged = method(batch, 0.0)
        optimiser.zero_grad()
        logged["loss"].backward()
        optimiser.step()
        method.after_step(0.0)
        losses.append(float(logged["loss"].detach()))
    return sum(losses[-4:]) / 4, float(logged["output_std"])


def test_shuffled_positives_are_worse_and_nothing_collapses(method, make_batch):
    other = copy.deepcopy(method)
    method.momentum = other.momentum = 0.9
    loss, std = train(method, make_batch)
    shuffled, _ = train(other, make_batch, shuffle=True)
    assert loss < shuffled - 0.3
    assert std > 0.3
