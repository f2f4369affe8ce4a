from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from scipy.special import softmax
from sklearn.metrics import log_loss
from torch.nn.functional import normalize

from miyagi.methods.exemplar import Exemplar, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import Head, Pretrain
from miyagi.train.loop import optimizer

RECIPE = RECIPES["exemplar"].views
LOSSES = ("softmax", "triplet")


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def make(encoder, info):
    def method(**settings):
        torch.manual_seed(1)
        return Exemplar(Settings(head=Head(kind="linear", out=32), **settings), encoder, info)

    return method


def test_one_weight_an_image_or_none(make):
    method = make()
    assert method.weight.shape == (256, 32) and method.bias.shape == (256,)
    assert {"weight", "bias"} <= set(method.state_dict())
    assert any(p is method.bias for p in method.parameter_groups()[1]["params"])
    names = dict(make(loss="triplet").named_parameters())
    assert all(name.startswith(("encoder.", "head.")) for name in names)


@pytest.mark.parametrize("loss", LOSSES)
def test_copies_are_views_of_their_own_in_one_forward_pass(make, make_batch, loss):
    method, seen = make(loss=loss, copies=3), []
    batch = make_batch(method, RECIPE, n=8)
    assert [view.name for view in method.views] == ["copy0", "copy1", "copy2"]
    assert not torch.equal(batch.views[0], batch.views[1]) and not torch.equal(batch.views[1], batch.views[2])
    method.encoder.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
    method(batch, 0.0)
    assert seen == [24]


def test_softmax_by_other_libraries(make, make_batch):
    method = make().eval()
    batch = make_batch(method, RECIPE, n=16)
    batch = replace(batch, index=batch.index.flip(0) * 5)
    with torch.no_grad():
        method.bias.uniform_(-1, 1)
        v = method.head(method.encoder(torch.cat(batch.views))).double().numpy()
        logged = method(batch, 0.0)
    share = softmax(v @ method.weight.detach().double().numpy().T + method.bias.detach().double().numpy(), axis=1)
    label = np.tile(batch.index.numpy(), 2)
    assert float(logged["loss"]) == pytest.approx(log_loss(label, share, labels=np.arange(256)), rel=1e-4)
    assert float(logged["accuracy"]) == (share.argmax(1) == label).mean()


@pytest.mark.parametrize("form", ["squared", "distance"])
def test_triplets_by_another_library(make, make_batch, form):
    """With two copies every triplet of the batch counts once, as in pytorch-metric-learning."""
    from pytorch_metric_learning.distances import LpDistance

    method = make(loss="triplet", form=form, margin=0.7).eval()
    batch = make_batch(method, RECIPE, n=12)
    with torch.no_grad():
        v = normalize(method.head(method.encoder(torch.cat(batch.views))), dim=1)
        logged = method(batch, 0.0)
    distance = LpDistance(normalize_embeddings=False, p=2, power=2 if form == "squared" else 1)
    other = TripletMarginLoss(margin=0.7, distance=distance, reducer=MeanReducer())
    torch.testing.assert_close(logged["loss"], other(v, batch.index.repeat(2)), rtol=1e-4, atol=1e-5)


def test_only_copies_of_other_images_are_negatives(make, make_batch):
    method = make(loss="triplet", copies=3, number=4)
    batch = make_batch(method, RECIPE, n=8)
    _, keep = method.negatives(batch.key, batch.index, torch.zeros(24, 32))
    image = torch.arange(24) % 8
    assert not keep[image[:, None] == image].any()
    assert torch.equal(keep.sum(1), torch.full((24,), 4))


def test_copies_that_are_the_same_and_images_that_are_far(make, make_batch):
    method = make(loss="triplet", l2_normalize=False)
    batch = make_batch(method, RECIPE, n=4)
    vectors = 10 * torch.eye(4, 32).repeat(2, 1)
    assert method.triplet(batch, vectors)["loss"] == 0 and method.triplet(batch, vectors)["accuracy"] == 1
    # The other copy is another image's, at a squared distance of 200, while a third of the others are at 0.
    mixed = torch.cat([vectors[:4], vectors[:4].roll(1, 0)])
    logged = method.triplet(batch, mixed)
    assert float(logged["loss"]) == pytest.approx(1 * 5 / 6 + 201 * 1 / 6)
    assert logged["accuracy"] == 0
    assert method.triplet(batch, torch.ones(8, 32))["accuracy"] == 0  # collapsed: all copies are as near


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_reaches_everything(make, make_batch, loss):
    method = make(loss=loss)
    method(make_batch(method, RECIPE, n=16), 0.0)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_shuffled_positives_are_worse(encoder, info, make_batch, loss):
    """64 images over and over: softmax gets another one's number at each step, triplets another one's copy."""
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}

    def train(shuffle):
        torch.manual_seed(0)
        encoder.load_state_dict(state)
        method = Exemplar(Settings(loss=loss, head=Head(kind="linear", out=32)), encoder, replace(info, n=64))
        optimiser, losses = optimizer(method, Pretrain(lr=3e-3)), []
        for i in range(20):
            batch = make_batch(method, RECIPE, 14 * i, n=64)
            if shuffle:
                order = torch.randperm(64)
                views = [batch.views[0], batch.views[1][order]] if loss == "triplet" else batch.views
                batch = replace(batch, views=views, index=batch.index if loss == "triplet" else order)
            logged = method(batch, 0.0)
            optimiser.zero_grad()
            logged["loss"].backward()
            optimiser.step()
            losses.append(float(logged["loss"].detach()))
        return sum(losses[-4:]) / 4

    assert train(shuffle=False) < train(shuffle=True) - 0.2


def test_triplets_need_two_copies():
    with pytest.raises(ValueError, match="copies must be 2 or more"):
        Settings(loss="triplet", copies=1)
