from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import color
from torch.nn.functional import normalize

from miyagi.errors import UserError
from miyagi.losses.contrast import contrast
from miyagi.methods.base import build
from miyagi.methods.cmc import CMC, Settings
from miyagi.nn.encoders import base as encoders
from miyagi.recipes import RECIPES
from miyagi.settings import Head
from tests.methods.training import descend

RECIPE = RECIPES["none"].views


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def make(info):
    def method(n=info.n, **settings):
        torch.manual_seed(0)
        encoder = encoders.build({"name": "pair", "of": {"name": "conv4", "width": 8}}, info.mean, info.std)
        return CMC(Settings(head=Head(kind="linear", out=16), **settings), encoder, replace(info, n=n))

    return method


def banks(method):
    return [method.light_negatives.bank.features, method.color_negatives.bank.features]


def test_the_papers_numbers():
    settings = Settings()
    assert (settings.temperature, settings.number, settings.bank_momentum, settings.loss) == (0.07, 16384, 0.5, "nce")
    assert settings.head.out == 128 and settings.head.kind == "linear"


def test_one_half_sees_lightness_and_the_other_colours(make, make_batch):
    method = make().eval()
    batch = make_batch(method, RECIPE, n=6)
    lab = color.rgb2lab(batch.views[0].double().numpy(), channel_axis=1)
    lab[:, 1:] = 0  # as light as before
    grey = torch.from_numpy(color.lab2rgb(lab, channel_axis=1)).float()
    with torch.no_grad():
        light, colors = method.halves(batch)
        other_light, other_colors = method.halves(replace(batch, views=[grey]))
    torch.testing.assert_close(other_light, light, atol=1e-3, rtol=0)
    assert (other_colors - colors).abs().max() > 0.01


def test_the_loss_by_its_formula(make, make_batch):
    """Each half against the bank of the other half: its image's feature, and those of 240 others as noise."""
    method = make().eval()
    batch = make_batch(method, RECIPE, n=16)
    with torch.no_grad():
        halves = [z.double().numpy() for z in method.halves(batch)]
        logged = method(batch, 0.0)
    first, second = (features.double().numpy() for features in banks(method))

    def nce(v, bank):
        scores, own = np.exp(v @ bank[16:].T / 0.07), np.exp((v * bank[:16]).sum(1) / 0.07)
        z, share = 256 * scores.mean(), 240 / 256
        return (-np.log(own / z / (own / z + share)) - np.log(share / (scores / z + share)).sum(1)).mean()

    assert float(logged["loss"]) == pytest.approx(nce(halves[0], second) + nce(halves[1], first), rel=1e-4)


def test_negatives_of_the_batch_by_cross_entropy(make, make_batch):
    """InfoNCE over the batch, both ways, is cross-entropy over the matrix of similarities and over its transpose."""
    method = make(negatives="batch", loss="info_nce", number=None).eval()
    batch = make_batch(method, RECIPE, n=16)
    with torch.no_grad():
        logits = torch.matmul(*[z.mT if i else z for i, z in enumerate(method.halves(batch))]) / 0.07
        logged = method(batch, 0.0)
    target = torch.arange(16)
    want = torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    torch.testing.assert_close(logged["loss"], want, rtol=1e-4, atol=1e-4)
    right = [(x.argmax(1) == target).float().mean() for x in (logits, logits.T)]
    assert logged["accuracy"] == (right[0] + right[1]) / 2


def test_each_bank_takes_in_its_own_half(make, make_batch):
    method = make().eval()
    batch = make_batch(method, RECIPE, n=16)
    before = [bank.clone() for bank in banks(method)]
    with torch.no_grad():
        halves = method.halves(batch)
        method(batch, 0.0)
    method.after_step(0.0)
    for bank, old, z in zip(banks(method), before, halves, strict=True):
        torch.testing.assert_close(bank[:16], normalize((old[:16] + z) / 2, dim=1))
        assert torch.equal(bank[16:], old[16:])


@pytest.mark.parametrize("negatives", ["bank", "batch"])
def test_no_gradient_for_the_banks(make, make_batch, negatives):
    method = make(negatives=negatives)
    logged = method(make_batch(method, RECIPE, n=16), 0.0)
    logged["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
    assert not any(buffer.requires_grad for buffer in method.buffers())


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("negatives", ["bank", "batch"])
def test_with_a_bank_each_loss_trains_its_own_half(make, make_batch, monkeypatch, negatives, own):
    """With one half's loss alone, the other half gets a gradient only where the batch is what it is compared with."""
    calls = []

    def one_alone(*arguments):
        calls.append(contrast(*arguments))
        return calls[-1] if len(calls) - 1 == own else {**calls[-1], "loss": calls[-1]["loss"].detach()}

    monkeypatch.setattr("miyagi.methods.cmc.contrast", one_alone)
    method = make(negatives=negatives)
    method(make_batch(method, RECIPE, n=16), 0.0)["loss"].backward()
    parts = (method.encoder, method.head)
    halves = [[p for part in parts for p in getattr(part, name).parameters()] for name in ("first", "second")]
    assert len(calls) == 2
    assert all(p.grad.any() for p in halves[own])
    assert all(p.grad.any() == (negatives == "batch") for p in halves[1 - own])


def test_grey_data_is_refused(info):
    with pytest.raises(UserError, match="cmc learns from colours"):
        build("cmc", {}, encoders.build({"name": "pair"}, info.mean, info.std), replace(info, color=False))


def test_shuffled_positives_of_the_batch_are_worse(make, make_batch):
    """Colours of another image than the lightness."""

    def train(shuffle):
        method = make(negatives="batch", loss="info_nce", temperature=0.2)
        if shuffle:
            split = method.encoder.split

            def other(x):
                light, colors = split(x)
                return light, colors[torch.randperm(len(x))]

            method.encoder.split = other
        losses = descend(method, (make_batch(method, RECIPE, i, n=64) for i in range(16)))
        return sum(losses[-4:]) / 4

    assert train(shuffle=False) < train(shuffle=True) - 0.4


def test_shuffled_positives_of_the_banks_are_worse(make, make_batch):
    """Ten epochs of 128 images, each with its own place in the banks or with another one in each epoch."""

    def batches(method, shuffle):
        for epoch in range(10):
            whole = make_batch(method, RECIPE, 14 * epoch, n=128)
            place = torch.randperm(128) if shuffle else whole.index
            for rows in whole.index.chunk(4):
                yield replace(whole, views=[whole.views[0][rows]], index=place[rows])

    def train(shuffle):
        method = make(n=128, temperature=0.2)
        return sum(descend(method, batches(method, shuffle))[-4:]) / 4

    assert train(shuffle=False) < train(shuffle=True) - 0.5
