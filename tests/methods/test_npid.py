from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss

from miyagi.methods.npid import NPID, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import Pretrain
from miyagi.train.loop import optimizer

RECIPE = RECIPES["simclr_small"].views


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def make(encoder, info):
    def method(**settings):
        torch.manual_seed(1)
        return NPID(Settings(**settings), encoder, info).eval()  # statistics stay as they are

    return method


def queries(method, batch):
    with torch.no_grad():
        z = method.head(method.encoder(batch.views[0])).double().numpy()
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_the_papers_numbers():
    settings = Settings()
    assert (settings.number, settings.temperature, settings.bank_momentum, settings.head.out) == (4096, 0.07, 0.5, 128)


def test_the_bank_moves_halfway_and_only_where_the_batch_was(make, make_batch):
    method = make()
    batch = make_batch(method, RECIPE, n=32)
    batch = replace(batch, index=batch.index.flip(0) * 3)
    before, v = method.negatives.bank.features.double().numpy(), queries(method, batch)
    method(batch, 0.0)
    assert np.array_equal(method.negatives.bank.features.double().numpy(), before)  # not before the step is done
    method.after_step(0.0)
    want = before.copy()
    want[batch.index] = (before[batch.index] + v) / 2
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(method.negatives.bank.features.numpy(), want, atol=1e-6)
    assert np.array_equal(method.negatives.bank.features.numpy()[1], before[1].astype(np.float32))
    assert method._pending == []


def test_nce_by_its_formula(make, make_batch):
    """Equations 6 to 8, with all images that are not in the batch as noise: 256 - 32."""
    method = make()
    batch = make_batch(method, RECIPE, n=32)
    v, bank = queries(method, batch), method.negatives.bank.features.double().numpy()
    logged = method(batch, 0.0)
    z = 256 * np.exp(v @ bank[32:].T / 0.07).mean()
    positive = np.exp((v * bank[:32]).sum(1) / 0.07) / z
    noise = np.exp(v @ bank[32:].T / 0.07) / z
    share = 224 / 256
    want = -np.log(positive / (positive + share)) - np.log(1 - noise / (noise + share)).sum(1)
    assert float(logged["loss"].detach()) == pytest.approx(want.mean(), rel=1e-4)
    assert float(logged["accuracy"]) == ((v * bank[:32]).sum(1) > (v @ bank[32:].T).max(1)).mean()
    assert float(method.partition.log_z) == pytest.approx(np.log(z), rel=1e-5)


def test_a_collapsed_network_finds_no_image(make, make_batch):
    method = make()
    method.negatives.bank.features.copy_(torch.eye(128)[:1].expand(256, 128))
    batch = make_batch(method, RECIPE, n=8)
    old = method.negatives.bank.features[batch.index]
    _, accuracy = method.nce(batch, old, old)
    assert accuracy == 0


def test_the_constant_is_fixed_after_the_first_batches(make, make_batch):
    method, found = make(number=16), []
    for i in range(13):
        method(replace(make_batch(method, RECIPE, i, n=8), index=torch.arange(8) + 16 * i), 0.0)
        found.append(float(method.partition.log_z))
    assert len(set(found[:10])) == 10
    assert len(set(found[9:])) == 1


def test_noise_is_other_images_and_as_much_as_asked_for(make, make_batch):
    method = make(number=20)
    method.negatives.bank.features.copy_(torch.zeros(256, 128))
    method.negatives.bank.features[:, 0] = torch.arange(256.0)
    batch = make_batch(method, RECIPE, n=64)
    drawn, _ = method.negatives(batch.key, batch.index, None)
    images = drawn[:, 0].tolist()
    assert len(set(images)) == 20 and min(images) >= 64
    other, _ = method.negatives(batch.key._replace(epoch=1), batch.index, None)
    assert other[:, 0].tolist() != images


def test_softmax_by_other_libraries(make, make_batch):
    method = make(loss="softmax")
    batch = make_batch(method, RECIPE, n=32)
    batch = replace(batch, index=batch.index + 7)
    share = softmax(queries(method, batch) @ method.negatives.bank.features.double().numpy().T / 0.07, axis=1)
    logged = method(batch, 0.0)
    assert float(logged["loss"].detach()) == pytest.approx(
        log_loss(batch.index, share, labels=np.arange(256)), rel=1e-4
    )
    assert float(logged["accuracy"]) == (share.argmax(1) == batch.index.numpy()).mean()


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_the_proximal_term(make, make_batch, loss):
    plain, held = make(loss=loss), make(loss=loss, proximal=30.0)
    batch = make_batch(plain, RECIPE, n=16)
    cosine = (queries(plain, batch) * plain.negatives.bank.features[:16].double().numpy()).sum(1)
    difference = float((held(batch, 0.0)["loss"] - plain(batch, 0.0)["loss"]).detach())
    assert difference == pytest.approx(30 * (2 - 2 * cosine).mean(), rel=1e-3)  # of two vectors of unit length


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_no_gradient_for_the_bank(make, make_batch, loss):
    method = make(loss=loss, proximal=1.0)
    method(make_batch(method, RECIPE, n=16), 0.0)["loss"].backward()
    bank = method.negatives.bank
    assert list(bank.parameters()) == [] and not bank.features.requires_grad
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_shuffled_positives_are_worse(encoder, info, make_batch, loss):
    """Ten epochs of 128 images, each with its own place in the bank or with another one in each epoch."""
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}

    def train(shuffle):
        torch.manual_seed(0)
        encoder.load_state_dict(state)
        method = NPID(Settings(loss=loss, temperature=0.2), encoder, replace(info, n=128))
        optimiser, losses = optimizer(method, Pretrain(lr=3e-3)), []
        for epoch in range(10):
            whole = make_batch(method, RECIPE, 14 * epoch, n=128)
            place = torch.randperm(128) if shuffle else whole.index
            for rows in whole.index.chunk(4):
                logged = method(replace(whole, views=[whole.views[0][rows]], index=place[rows]), 0.0)
                optimiser.zero_grad()
                logged["loss"].backward()
                optimiser.step()
                method.after_step(0.0)
                losses.append(float(logged["loss"].detach()))
        return sum(losses[-4:]) / 4

    assert train(shuffle=False) < train(shuffle=True) - 0.25
