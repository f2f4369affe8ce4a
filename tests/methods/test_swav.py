import copy
from collections import Counter

import pytest
import torch
from lightly.loss import SwaVLoss

from miyagi.methods.swav import Settings, SwAV
from miyagi.settings import Crop, Head, Pretrain, ViewRecipe
from miyagi.train.loop import optimizer

MILD = tuple(ViewRecipe(crop=Crop(scale=scale)) for scale in ((0.5, 1.0), (0.3, 0.5)))
"""A few steps are too few for the paper's."""
SMALL = {"head": Head(width=64, out=32, batch_norm=True), "prototypes": 32, "small": 2, "small_size": 0.75}


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


@pytest.fixture
def make(encoder, info):
    def method(**settings):
        torch.manual_seed(0)
        return SwAV(Settings(**{**SMALL, **settings}), copy.deepcopy(encoder), info)

    return method


def scores_of(method, batch):
    """Four views' scores."""
    features = [method.encoder(torch.cat(batch.views[part])) for part in (slice(0, 2), slice(2, 4))]
    return method.prototypes(method.head(torch.cat(features))).chunk(4)


def test_the_loss_is_lightlys_and_crops_of_one_size_share_a_pass(make, make_batch):
    method, shapes = make(), Counter()
    method.encoder.register_forward_hook(lambda module, inputs, output: shapes.update([tuple(inputs[0].shape)]))
    batch = make_batch(method, MILD, n=8)
    logged = method(batch, 0.0)
    assert shapes == {(16, 3, 32, 32): 1, (16, 3, 24, 24): 1}
    scores = scores_of(method, batch)
    torch.testing.assert_close(logged["loss"], SwaVLoss()(list(scores[:2]), list(scores[2:]))[0])
    nearest = {int(prototype) for view in scores[:2] for prototype in view.argmax(1)}
    assert float(logged["used"]) == pytest.approx(len(nearest) / 32)


def test_a_full_queue_takes_part_in_the_codes(make, make_batch):
    """From epoch 1 on it fills with both large crops' embeddings; it counts once it holds 16 of them."""
    method = make(queue=16, queue_epochs=1)
    batches = [make_batch(method, MILD, i, n=8) for i in range(4)]
    kept = []
    for step, epoch in enumerate((0, 1, 1)):
        method.before_epoch(epoch, [])
        logged = method(batches[step], 0.0)
        scores = scores_of(method, batches[step])
        torch.testing.assert_close(logged["loss"], SwaVLoss()(list(scores[:2]), list(scores[2:]))[0])
        (z,) = method._pending
        assert z.shape == (2, 8, 32) and not z.requires_grad
        kept += [z] if epoch else []
        method.after_step(0.0)
        assert int(method.queued) == 8 * len(kept)
    held = torch.cat(kept, 1)
    assert all(torch.equal(queue.keys, z) for queue, z in zip(method.queues, held, strict=True))
    with_queue = method(batches[3], 0.0)["loss"]
    scores = scores_of(method, batches[3])
    earlier = [method.prototypes(z) for z in held]
    torch.testing.assert_close(with_queue, SwaVLoss()(list(scores[:2]), list(scores[2:]), earlier)[0])
    assert not torch.isclose(with_queue, SwaVLoss()(list(scores[:2]), list(scores[2:]))[0])
    assert {"queues.0.keys", "queues.1.position", "queued"} <= set(method.state_dict())


def test_without_a_queue_the_epoch_in_which_it_would_begin_is_like_any_other(make, make_batch):
    method = make()
    method.before_epoch(method.settings.queue_epochs, [])
    for i in range(2):
        method(make_batch(method, MILD, i, n=8), 0.0)
        method.after_step(0.0)
    assert not method._pending and int(method.queued) == 0


def test_the_gradient_reaches_the_prototypes_and_not_the_queue(make, make_batch):
    method = make(queue=8, queue_epochs=0)
    for i in range(2):
        method(make_batch(method, MILD, i, n=8), 0.0)["loss"].backward()
        method.after_step(0.0)
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(queue.keys.grad is None and not queue.keys.requires_grad for queue in method.queues)


def test_prototypes_do_not_move_in_the_first_epoch_and_keep_length_one(make, make_batch):
    method = make()
    optimiser = optimizer(method, Pretrain(weight_decay=0.1, lr=1e-2))
    moved = []
    for epoch in (0, 1):
        method.before_epoch(epoch, [])
        before = [p.detach().clone() for p in (method.prototypes.weight, method.head[0].weight)]
        optimiser.zero_grad()
        method(make_batch(method, MILD, epoch, n=8), 0.0)["loss"].backward()
        method.after_backward(0.0)
        optimiser.step()
        method.after_step(0.0)
        after = (method.prototypes.weight, method.head[0].weight)
        moved.append([not torch.allclose(*pair, atol=1e-5) for pair in zip(before, after, strict=True)])
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(32))
    assert moved == [[False, True], [True, True]]


def train(method, make_batch, shuffle=False):
    """The mean loss of the last 4 of 16 steps, and the prototypes used in the last one."""
    optimiser = optimizer(method, Pretrain())
    losses = []
    for group in optimiser.param_groups:
        group["lr"] = 3e-3
    for i in range(16):
        batch = make_batch(method, MILD, i, n=64)
        if shuffle:
            batch.views[1:] = [view.roll(i, 0) for i, view in enumerate(batch.views[1:], 1)]
        logged = method(batch, 0.0)
        optimiser.zero_grad()
        logged["loss"].backward()
        optimiser.step()
        method.after_step(0.0)
        losses.append(float(logged["loss"].detach()))
    return sum(losses[-4:]) / 4, float(logged["used"])


def test_shuffled_positives_are_worse_and_nothing_collapses(make, make_batch):
    loss, used = train(make(small=1), make_batch)
    shuffled, _ = train(make(small=1), make_batch, shuffle=True)
    assert loss < shuffled - 0.15
    assert used > 0.3
