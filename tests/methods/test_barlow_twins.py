import copy

import pytest
import torch
from lightly.loss import BarlowTwinsLoss

from miyagi.methods.barlow_twins import BarlowTwins, Settings
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
    return BarlowTwins(Settings(head=HEAD), encoder, info)


def test_the_loss_is_lightlys_and_each_view_has_its_own_batch(method, make_batch):
    sizes = []
    method.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    batch = make_batch(method, RECIPE, n=24)
    logged = method(batch, 0.0)
    assert sizes == [24, 24]
    embeddings = [method.head(method.encoder(view)) for view in batch.views]
    torch.testing.assert_close(logged["loss"], BarlowTwinsLoss()(*embeddings))


def test_lambda_weighs_the_redundancy(method, make_batch):
    batch = make_batch(method, RECIPE, n=24)
    method.redundancy = 0.5
    logged = method(batch, 0.0)
    torch.testing.assert_close(logged["loss"], logged["invariance"] + 0.5 * logged["redundancy"])


def test_batch_norm_on_the_output_is_what_the_loss_does_anyway(encoder, info, make_batch):
    batch, found = None, []
    for out_batch_norm in (False, True):
        torch.manual_seed(0)
        method = BarlowTwins(Settings(head=Head(kind="linear", out=8, out_batch_norm=out_batch_norm)), encoder, info)
        batch = batch or make_batch(method, RECIPE, n=24)
        found.append(method)
    with torch.no_grad():
        found[1].head[0].weight.copy_(found[0].head[0].weight)
    torch.testing.assert_close(found[0](batch, 0.0)["loss"], found[1](batch, 0.0)["loss"], rtol=1e-3, atol=1e-3)


def test_shuffled_positives_are_worse_and_nothing_collapses(method, make_batch):
    other = copy.deepcopy(method)
    losses = descend(method, pairs(method, make_batch, MILD, 16))
    shuffled = descend(other, pairs(other, make_batch, MILD, 16, shuffle=True))
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert sum(losses[-4:]) < 0.9 * sum(shuffled[-4:])
    with torch.no_grad():
        projected = method.head(method.encoder(make_batch(method, MILD, n=64).views[0]))
    assert embedding_std(projected.numpy()) > 0.05
