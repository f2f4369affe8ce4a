import copy
import math
from collections import Counter

import pytest
import torch
from lightly.loss import DINOLoss

from miyagi.methods.dino import DINO, Settings
from miyagi.settings import Crop, Head, Pretrain, ViewRecipe
from miyagi.train.loop import optimizer

MILD = tuple(ViewRecipe(crop=Crop(scale=scale)) for scale in ((0.5, 1.0), (0.3, 0.5)))
"""A few steps are too few for the paper's."""
SMALL = {"head": Head(width=64, out=32, activation="gelu"), "outputs": 64, "small": 2, "small_size": 0.75}


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)  # small tensors: two threads would wait for each other most of the time


@pytest.fixture
def make(encoder, info):
    def method(**settings):
        torch.manual_seed(0)
        return DINO(Settings(**{**SMALL, **settings}), copy.deepcopy(encoder), info)

    return method


def teacher_of(method):
    return (
        (method.teacher_encoder, method.encoder),
        (method.teacher_head, method.head),
        (method.teacher_last, method.last),
    )


def test_the_loss_is_lightlys_and_crops_of_one_size_share_a_pass(make, make_batch):
    method, shapes = make(), Counter()
    method.encoder.register_forward_hook(lambda module, inputs, output: shapes.update([tuple(inputs[0].shape)]))
    method.teacher_encoder.register_forward_hook(lambda module, inputs, output: shapes.update([len(output)]))
    batch = make_batch(method, MILD, n=8)
    method.center.uniform_(-0.1, 0.1)
    logged = method(batch, 0.0)
    assert shapes == {(16, 3, 32, 32): 1, (16, 3, 24, 24): 1, 16: 1}
    outputs = []
    for encoder, head, last in zip(*teacher_of(method), strict=True):
        large, small = encoder(torch.cat(batch.views[:2])), encoder(torch.cat(batch.views[2:]))
        outputs.append(last(head(torch.cat([large, small]))).chunk(4))
    theirs = DINOLoss(output_dim=64, teacher_temp=0.04, student_temp=0.1)
    theirs.center = method.center[None, None].clone()
    torch.testing.assert_close(logged["loss"], theirs(list(outputs[0][:2]), list(outputs[1])))


def test_no_gradient_for_teacher_and_centre(make, make_batch):
    method = make()
    method(make_batch(method, MILD, n=8), 0.0)["loss"].backward()
    for teacher, student in teacher_of(method):
        assert all(p.grad is None for p in teacher.parameters())
        assert all(p.grad.abs().sum() > 0 for p in student.parameters())
    assert method.center.grad is None and not method.center.requires_grad


def test_the_teacher_follows(make, make_batch):
    """Half-way m is 1 - 0.004 / 2."""
    method = make()
    method(make_batch(method, MILD, n=8), 0.5)
    before = copy.deepcopy([list(teacher.parameters()) for teacher, _ in teacher_of(method)])
    with torch.no_grad():
        for _, student in teacher_of(method):
            for p in student.parameters():
                p.add_(1.0)
    method.after_step(0.5)
    for (teacher, student), old in zip(teacher_of(method), before, strict=True):
        for got, was, new in zip(teacher.parameters(), old, student.parameters(), strict=True):
            torch.testing.assert_close(got, 0.998 * was + 0.002 * new)
            assert not torch.equal(got, was)


def test_downstream_keeps_the_teacher(make):
    method = make()
    assert method.downstream() == (method.teacher_encoder, method.teacher_head)
    method = make(keep="student")
    assert method.downstream() == (method.encoder, method.head)


def test_the_centre_is_a_moving_average_of_what_the_teacher_says(make, make_batch):
    """Of both large views, and of all parts of an accumulated batch; a step uses the centre that it began with."""
    method, means = make(momentum=1.0, center_momentum=0.75), []
    method.teacher_last.register_forward_hook(lambda module, inputs, output: means.append(output.mean(0)))
    want = torch.zeros(64)
    for step in range(2):
        for part in range(2):
            method(make_batch(method, MILD, 2 * step + part, n=8), 0.0)
            torch.testing.assert_close(method.center, want)
        method.after_step(0.0)
        want = 0.75 * want + 0.25 * (means[-1] + means[-2]) / 2
        torch.testing.assert_close(method.center, want)
    assert "center" in method.state_dict() and method.center.abs().max() > 0.01


def test_the_teachers_temperature_rises_over_the_first_epochs(make):
    """As in lightly's schedule, which is the authors'."""
    method = make(warmup_temperature_epochs=5)
    theirs = DINOLoss(8, warmup_teacher_temp=0.04, teacher_temp=0.07, warmup_teacher_temp_epochs=5)
    found = []
    for epoch in range(7):
        method.before_epoch(epoch, [])
        found.append(method.teacher_temperature)
    assert found == pytest.approx([*theirs.teacher_temp_schedule.tolist(), 0.07, 0.07])
    assert make(warmup_temperature_epochs=0).teacher_temperature == pytest.approx(0.07)
    assert make(warmup_temperature_epochs=1).teacher_temperature == pytest.approx(0.04)


def test_the_last_layer_does_not_move_in_the_first_epoch(make, make_batch):
    method = make()
    optimiser = optimizer(method, Pretrain(weight_decay=0.1, lr=1e-2))
    moved = []
    for epoch in (0, 1):
        method.before_epoch(epoch, [])
        before = [p.detach().clone() for p in (method.last.weight, method.head[0].weight)]
        optimiser.zero_grad()
        method(make_batch(method, MILD, epoch, n=8), 0.0)["loss"].backward()
        method.after_backward(0.0)
        optimiser.step()
        method.after_step(0.0)
        after = (method.last.weight, method.head[0].weight)
        moved.append([not torch.equal(*pair) for pair in zip(before, after, strict=True)])
    assert moved == [[False, True], [True, True]]


def gap(method, make_batch, shuffle):
    """After 24 steps: how much worse the loss is where the crops are of other images, and the teacher's entropy."""

    def shuffled(batch):
        batch.views[1:] = [view.roll(i, 0) for i, view in enumerate(batch.views[1:], 1)]
        return batch

    optimiser = optimizer(method, Pretrain())
    for group in optimiser.param_groups:
        group["lr"] = 1e-3
    for i in range(24):
        batch = make_batch(method, MILD, i, n=64)
        optimiser.zero_grad()
        method(shuffled(batch) if shuffle else batch, 0.0)["loss"].backward()
        optimiser.step()
        method.after_step(0.0)
    with torch.no_grad():
        batch = make_batch(method, MILD, 13, n=64)
        right = method(batch, 0.0)
        return float(method(shuffled(batch), 0.0)["loss"] - right["loss"]), float(right["entropy"])


def test_shuffled_positives_are_worse_and_nothing_collapses(make, make_batch):
    settings = {"small": 1, "momentum": 0.9, "center_momentum": 0.5}
    learned, entropy = gap(make(**settings), make_batch, shuffle=False)
    nothing, _ = gap(make(**settings), make_batch, shuffle=True)
    assert learned > 0.08 and learned > 2 * nothing
    assert 0.2 * math.log(64) < entropy < 0.999 * math.log(64)
