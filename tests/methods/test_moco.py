import copy
from dataclasses import replace

import pytest
import torch

from miyagi.data.batch import Batch
from miyagi.errors import UserError
from miyagi.methods.moco import MoCo, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import Crop, Head, Pretrain, ViewRecipe
from miyagi.train.loop import optimizer
from tests.methods.training import descend, pairs

RECIPE = RECIPES["simclr_small"].views
MILD = (ViewRecipe(crop=Crop(scale=(0.5, 1.0))),)
"""A few steps are too few for the paper's."""


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


def test_no_gradient_for_keys_and_queue(encoder, info, make_batch):
    method = MoCo(Settings(queue=64), encoder, info)
    method(make_batch(method, RECIPE), 0.0)["loss"].backward()
    assert all(p.grad is None for p in (*method.key_encoder.parameters(), *method.key_head.parameters()))
    assert all(p.grad is not None for p in (*method.encoder.parameters(), *method.head.parameters()))
    assert method.negatives.queue.keys.grad is None


def test_the_key_encoder_follows_and_the_queue_fills(encoder, info, make_batch):
    method = MoCo(Settings(queue=300, momentum=0.9), encoder, info)
    before = [p.clone() for p in method.key_encoder.parameters()]
    optimiser = optimizer(method, Pretrain())
    for i in range(2):
        loss = method(make_batch(method, RECIPE, i), 0.0)["loss"]
        loss.backward()
        optimiser.step()
        ((_, pending),) = method._pending
        expected = [
            0.9 * k + 0.1 * q for k, q in zip(method.key_encoder.parameters(), method.encoder.parameters(), strict=True)
        ]
        method.after_step(0.0)
        for got, want in zip(method.key_encoder.parameters(), expected, strict=True):
            torch.testing.assert_close(got, want)
        assert torch.equal(method.negatives.queue.keys[128 * i : 128 * (i + 1)], pending)
    assert int(method.negatives.queue.position) == 256
    assert any(not torch.equal(p, q) for p, q in zip(before, method.key_encoder.parameters(), strict=True))


def test_queue_and_key_encoder_are_in_the_state(encoder, info):
    names = MoCo(Settings(queue=8), encoder, info).state_dict()
    assert {"negatives.queue.keys", "negatives.queue.position"} <= set(names)
    assert any(name.startswith("key_encoder.") for name in names)
    assert any(name.startswith("key_head.") for name in names)


def test_v1_by_settings(encoder, info, make_batch):
    method = MoCo(Settings(recipe="moco_v1", temperature=0.07, head=Head(kind="linear"), queue=8), encoder, info)
    assert [type(layer).__name__ for layer in method.head] == ["Linear"]
    assert torch.isfinite(method(make_batch(method, RECIPE), 0.0)["loss"])


def test_symmetric_is_the_mean_of_both_ways(encoder, info, make_batch):
    """Against two losses with the views exchanged; the queue takes in the keys of both."""
    method = MoCo(Settings(queue=300, symmetric=True), encoder, info)
    batch = make_batch(method, RECIPE, n=32)
    method.eval()
    both = method(batch, 0.0)
    ((_, keys),) = method._pending
    method._pending.clear()
    method.settings = Settings(queue=300)
    one, other = method(batch, 0.0), method(replace(batch, views=batch.views[::-1]), 0.0)
    for name in ("loss", "accuracy"):
        torch.testing.assert_close(both[name], (one[name] + other[name]) / 2)
    torch.testing.assert_close(keys, torch.cat([pending for _, pending in method._pending]))
    method.after_step(0.0)
    torch.testing.assert_close(method.negatives.queue.keys[:64], keys)


def test_keys_come_back_in_the_batchs_order(encoder, info, make_batch):
    """Shuffled and in parts or not: with fixed statistics the keys are the same, each at its image's place."""
    method = MoCo(Settings(queue=64), encoder, info)
    batch = make_batch(method, RECIPE, n=50)
    method.key_encoder.eval()
    want = torch.nn.functional.normalize(method.key_head(method.key_encoder(batch.views[1])), dim=1)
    torch.testing.assert_close(method.encode_keys(batch), want)


def test_keys_are_normalised_in_shuffled_parts(encoder, info, make_batch):
    method, seen = MoCo(Settings(queue=64, key_splits=4), encoder, info), []
    batch = make_batch(method, RECIPE, n=64)
    method.key_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.encode_keys(batch)
    assert [len(part) for part in seen] == [16] * 4
    assert not torch.equal(torch.cat(seen), batch.views[1])
    assert torch.equal(torch.cat(seen).flatten(1).sum(1).sort().values, batch.views[1].flatten(1).sum(1).sort().values)
    method.settings = Settings(queue=64, key_splits=8)
    for n in range(2, 65):  # never a part of one image, which BatchNorm cannot take
        seen.clear()
        method.encode_keys(Batch([batch.views[0][:n], batch.views[1][:n]], batch.index[:n], batch.label[:n], batch.key))
        assert min(len(part) for part in seen) >= 2
        assert sum(len(part) for part in seen) == n


@pytest.mark.parametrize(("splits", "processes"), [(1, 2), (8, 3)])
def test_parts_that_processes_cannot_share_out(encoder, info, monkeypatch, splits, processes):
    monkeypatch.setattr("miyagi.methods.moco.world_size", lambda: processes)
    MoCo(Settings(queue=8, key_splits=2 * processes), encoder, info)
    with pytest.raises(
        UserError, match=f"key_splits {splits} cannot be shared out among {processes} processes; make it"
    ):
        MoCo(Settings(queue=8, key_splits=splits), encoder, info)


def test_shuffled_positives_are_worse(encoder, info, make_batch):
    torch.manual_seed(0)
    method = MoCo(Settings(queue=256, momentum=0.99, temperature=0.2), encoder, info)
    other = copy.deepcopy(method)
    losses = descend(method, pairs(method, make_batch, MILD, 24))
    shuffled = descend(other, pairs(other, make_batch, MILD, 24, shuffle=True))
    assert sum(losses[-4:]) / 4 < sum(shuffled[-4:]) / 4 - 0.15  # 0.29 to 0.62 in four seeds
