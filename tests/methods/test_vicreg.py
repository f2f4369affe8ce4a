import copy

import pytest
import torch
from lightly.loss import VICRegLoss

from miyagi.methods.vicreg import Settings, VICReg
from miyagi.metrics.collapse import embedding_std
from miyagi.recipes import RECIPES
from miyagi.settings import Crop, Head, ViewRecipe
from tests.methods.training import descend, pairs

RECIPE = RECIPES["simclr_small"].views
MILD = (ViewRecipe(crop=Crop(scale=(0.5, 1.0))),)
"""A few steps are too few for the paper's."""
HEAD = Head(width=64, out=64, batch_norm=True)


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


@pytest.fixture
def method(encoder, info):
    torch.manual_seed(0)
    return VICReg(Settings(head=HEAD), encoder, info)


def test_the_loss_is_lightlys_and_each_view_has_its_own_batch(method, make_batch):
    sizes = []
    method.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    batch = make_batch(method, RECIPE, n=24)
    logged = method(batch, 0.0)
    assert sizes == [24, 24]
    embeddings = [method.head(method.encoder(view)) for view in batch.views]
    torch.testing.assert_close(logged["loss"], VICRegLoss()(*embeddings))


def test_weights(encoder, info, make_batch):
    method = VICReg(Settings(head=HEAD, invariance=2.0, variance=3.0, covariance=0.5), encoder, info)
    logged = method(make_batch(method, RECIPE, n=24), 0.0)
    want = 2 * logged["invariance"] + 3 * logged["variance"] + 0.5 * logged["covariance"]
    torch.testing.assert_close(logged["loss"], want)


def test_no_parameter_is_without_effect(method, make_batch):
    """A bias on the output would shift all embeddings alike, which no term sees."""
    assert method.head[-1].bias is None
    method(make_batch(method, RECIPE, n=24), 0.0)["loss"].backward()
    assert all(p.grad.norm() > 1e-4 for p in method.parameters())


@torch.no_grad()
def test_a_collapsed_network_pays_the_whole_variance_term(method, make_batch):
    method.head[-1].weight.zero_()
    logged = method(make_batch(method, RECIPE, n=24), 0.0)
    assert float(logged["loss"]) == pytest.approx(25 * 0.99)


def test_shuffled_positives_are_worse_and_nothing_collapses(method, make_batch):
    other = copy.deepcopy(method)
    losses = descend(method, pairs(method, make_batch, MILD, 16))
    shuffled = descend(other, pairs(other, make_batch, MILD, 16, shuffle=True))
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert sum(losses[-4:]) < 0.9 * sum(shuffled[-4:])
    with torch.no_grad():
        projected = method.head(method.encoder(make_batch(method, MILD, n=64).views[0]))
    assert embedding_std(projected.numpy()) > 0.05
