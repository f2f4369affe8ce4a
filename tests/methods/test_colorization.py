"""Against scikit-image's Lab, scikit-learn's neighbours and plain numpy."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from skimage import color
from sklearn.neighbors import NearestNeighbors

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.lab import rgb_to_lab
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods.base import build
from miyagi.methods.colorization import Colorization, Settings
from miyagi.recipes import RECIPES

RECIPE = RECIPES["none"].views
SMALL = {"bins": 20.0, "width": 16}


@pytest.fixture
def method(encoder, info):
    torch.manual_seed(0)
    return Colorization(Settings(**SMALL), encoder, info)


def truth(batch, side):
    """ab of each place, N x side x side x 2, by scikit-image and the mean over its square of pixels."""
    lab = color.rgb2lab(batch.views[0].numpy(), channel_axis=1)[:, 1:]
    n, _, size, _ = lab.shape
    return lab.reshape(n, 2, side, size // side, side, size // side).mean((3, 5)).transpose(0, 2, 3, 1)


def soft(colours, bins, neighbours, sigma):
    """Dense soft encoding, P x Q, and the nearest bin of each."""
    distance, index = NearestNeighbors(n_neighbors=neighbours).fit(bins).kneighbors(colours)
    weight = np.exp(-(distance**2) / (2 * sigma**2))
    dense = np.zeros((len(colours), len(bins)))
    np.put_along_axis(dense, index, weight / weight.sum(1, keepdims=True), 1)
    return dense, index[:, 0]


@pytest.mark.parametrize(("size", "side"), [(28, 7), (32, 8), (96, 24)])
def test_an_answer_for_each_four_pixels(encoder, size, side):
    info = DataInfo(n=8, classes=2, size=size, mean=(0.5,) * 3, std=(0.3,) * 3)
    method = Colorization(Settings(), encoder, info)
    lab = rgb_to_lab(torch.rand(2, 3, size, size))
    assert method.logits(lab).shape == (2, 309, side, side)
    assert method.truth(lab).shape == (2, 2, side, side)
    assert list(method.head) == []


def test_the_encoder_is_given_the_lightness_and_no_colour(method, make_batch):
    batch = make_batch(method, RECIPE, n=8)
    lab = rgb_to_lab(batch.views[0])
    seen = []
    method.encoder.blocks["conv1"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    first = method.eval().logits(lab)
    red, green, blue = seen[0].unbind(1)
    torch.testing.assert_close(red, green, atol=1e-3, rtol=0)
    torch.testing.assert_close(red, blue, atol=1e-3, rtol=0)
    light = color.rgb2lab(method.asked(lab).numpy(), channel_axis=1)[:, 0]
    np.testing.assert_allclose(light, color.rgb2lab(batch.views[0].numpy(), channel_axis=1)[:, 0], atol=0.05)
    other = torch.cat([lab[:, :1], -lab[:, 1:]], 1)
    assert torch.equal(method.logits(other), first)


def test_the_loss_by_numpy(method, make_batch):
    batch = make_batch(method, RECIPE, n=6)
    method.eval()
    method.weight.copy_(torch.linspace(0.5, 3, len(method.weight)))
    with torch.no_grad():
        logged, logits = method(batch, 0.0), method.logits(rgb_to_lab(batch.views[0])).numpy()
    flat = logits.transpose(0, 2, 3, 1).reshape(-1, logits.shape[1])
    target, nearest = soft(truth(batch, 8).reshape(-1, 2), method.bins.numpy(), 5, 5.0)
    cross_entropy = -(target * log_softmax(flat, axis=1)).sum(1)
    assert float(logged["loss"]) == pytest.approx((method.weight.numpy()[nearest] * cross_entropy).mean(), rel=1e-3)
    assert float(logged["accuracy"]) == pytest.approx((flat.argmax(1) == nearest).mean(), abs=0.01)


def test_the_weights_are_counted_once_before_the_first_epoch(method, make_batch):
    batches = [make_batch(method, RECIPE, epoch) for epoch in range(3)]
    assert (method.weight == 1).all()
    method.before_epoch(0, batches)
    bins = method.bins.numpy().astype(float)
    colours = np.concatenate([truth(batch, 8).reshape(-1, 2) for batch in batches])
    counts = np.bincount(soft(colours, bins, 1, 5.0)[1], minlength=len(bins))
    kernel = np.exp(-((bins[:, None] - bins) ** 2).sum(2) / (2 * 5.0**2))
    prior = counts / counts.sum() @ (kernel / kernel.sum(1, keepdims=True))
    want = 1 / (0.5 * prior + 0.5 / len(bins))
    np.testing.assert_allclose(method.weight, want / (prior * want).sum(), rtol=0.02)
    assert method.weight[counts.argmax()] == method.weight.min() < 0.2 * method.weight.max()
    kept = method.weight.clone()
    method.before_epoch(1, iter(()))  # no pass over the data
    assert torch.equal(method.weight, kept)
    assert torch.equal(method.state_dict()["weight"], kept)  # a resume does not count again


def test_without_rebalancing_nothing_is_counted(encoder, info):
    method = Colorization(Settings(uniform=1.0), encoder, info)
    method.before_epoch(0, iter(()))
    assert (method.weight == 1).all()


def test_shuffled_colours_are_worse(method, fit):
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, RECIPE, steps=40, lr=0.01)
    method.load_state_dict(state)
    own = method.truth

    def shuffled(lab):  # another image's colours
        return own(lab).roll(1, dims=0)

    method.truth = shuffled
    assert true < fit(method, RECIPE, steps=40, lr=0.01) - 0.25


def test_grey_data_is_refused(encoder, info):
    for name in ("colorization", "split_brain"):
        with pytest.raises(UserError, match=f"^{name} learns from colours, but the training images are all grey"):
            build(name, {}, encoder, dataclasses.replace(info, color=False))
    build("rotation", {}, encoder, dataclasses.replace(info, color=False))


def test_pictures_of_question_and_answer(method, make_batch):
    batch = make_batch(method, RECIPE, n=4)
    with torch.no_grad():
        shown = method.eval().show(batch)
        assert list(shown) == ["given", "answer", "truth at its resolution", "truth"]
        assert torch.equal(shown["truth"], batch.views[0])
        red, green, blue = shown["given"].unbind(1)
        torch.testing.assert_close(red, green, atol=1e-3, rtol=0)
        torch.testing.assert_close(red, blue, atol=1e-3, rtol=0)
        coarse = (shown["truth at its resolution"] - shown["truth"]).abs().mean()
        assert coarse < (shown["given"] - shown["truth"]).abs().mean() / 3
        # A network that is sure of one colour everywhere: its annealed mean is that bin, drawn with the image's light.
        method.decoder[-1].weight.zero_()
        sure = int((method.bins - torch.tensor([20.0, 20.0])).square().sum(1).argmin())
        method.decoder[-1].bias.copy_(torch.nn.functional.one_hot(torch.tensor(sure), len(method.bins)) * 50.0)
        grey = Batch([torch.full((1, 3, 32, 32), 0.5)], torch.zeros(1), torch.zeros(1), Key(0, 0))
        drawn = method.show(grey)["answer"]
    want = color.lab2rgb(np.array([color.rgb2lab(np.full(3, 0.5))[0], 20, 20]))
    np.testing.assert_allclose(drawn[0, :, 5, 5], want, atol=1e-3)
    assert math.isclose(float(drawn.std((2, 3)).max()), 0, abs_tol=1e-4)
