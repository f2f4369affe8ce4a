import copy

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity

from miyagi.methods.simsiam import Settings, SimSiam
from miyagi.recipes import RECIPES
from miyagi.settings import Crop, Head, Pretrain, ViewRecipe
from miyagi.train.loop import optimizer

RECIPE = RECIPES["simclr_small"].views
MILD = (ViewRecipe(crop=Crop(scale=(0.5, 1.0))),)
"""A few steps are too few for the paper's."""
SMALL = Settings(head=Head(width=64, depth=2, out=64, batch_norm=True, out_batch_norm=True), predictor_width=16)


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


@pytest.fixture
def method(encoder, info):
    torch.manual_seed(0)
    return SimSiam(SMALL, encoder, info)


def test_the_loss_is_symmetric_and_each_view_has_its_own_batch(method, make_batch):
    sizes = []
    method.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    batch = make_batch(method, RECIPE, n=24)
    logged = method(batch, 0.0)
    assert sizes == [24, 24]
    z = [method.head(method.encoder(view)) for view in batch.views]
    p = [method.predictor(x) for x in z]
    theirs = NegativeCosineSimilarity()
    torch.testing.assert_close(logged["loss"], (theirs(p[0], z[1]) + theirs(p[1], z[0])) / 2)


def test_the_gradient_stops_at_what_is_predicted(method, make_batch):
    """All of it passes the predictor: with a predictor that passes nothing on, nothing is left."""
    batch = make_batch(method, RECIPE, n=24)
    method(batch, 0.0)["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())
    method.zero_grad()
    method.predictor[0].register_forward_pre_hook(lambda module, inputs: inputs[0].detach())
    method(batch, 0.0)["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.predictor.parameters())
    assert all(p.grad is None for part in (method.encoder, method.head) for p in part.parameters())


def test_the_papers_shape():
    settings = Settings()
    head = Head(kind="mlp", width=2048, depth=2, out=2048, batch_norm=True, out_batch_norm=True)
    assert (settings.head, settings.predictor_width) == (head, 512)


def train(method, make_batch, shuffle=False):
    """The losses of 16 steps, and output_std of the last one."""
    optimiser = optimizer(method, Pretrain())
    losses = []
    for group in optimiser.param_groups:
        group["lr"] = 3e-3
    for i in range(16):
        batch = make_batch(method, MILD, i, n=64)
        if shuffle:
            batch.views[1] = batch.views[1].roll(1, 0)
        logged = method(batch, 0.0)
        optimiser.zero_grad()
        logged["loss"].backward()
        optimiser.step()
        losses.append(float(logged["loss"].detach()))
    return losses, float(logged["output_std"])


def test_shuffled_positives_are_worse_and_nothing_collapses(method, make_batch):
    other = copy.deepcopy(method)
    losses, std = train(method, make_batch)
    shuffled, _ = train(other, make_batch, shuffle=True)
    assert sum(losses[-4:]) / 4 < losses[0] - 0.2
    assert sum(losses[-4:]) < sum(shuffled[-4:]) - 4 * 0.1
    assert std > 0.3
