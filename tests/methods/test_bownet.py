from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import log_softmax
from sklearn.metrics import pairwise_distances_argmin

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods.bownet import BoWNet, Settings
from miyagi.nn.encoders.base import build
from miyagi.recipes import RECIPES
from tests.processes import together

RECIPE = RECIPES["bownet"].views


def make(encoder, info, **settings):
    torch.manual_seed(0)
    return BoWNet(Settings(**({"words": 12} | settings)), encoder, info)


@pytest.fixture
def method(encoder, info):
    return make(encoder, info)


@pytest.fixture
def batches(method, make_batch):
    return [make_batch(method, RECIPE, epoch, n=32) for epoch in (0, 1)]


def student(method, batches):
    """`method` at the start of its second phase; the teacher has seen images, so its BatchNorm knows them."""
    with torch.no_grad():
        for _ in range(20):
            method(batches[0], 0.0)
    method.done.fill_(0.9)
    method.before_epoch(1, batches)
    return method


def test_the_last_layer_with_16_places(encoder, info):
    method = make(encoder, info)
    assert (method.layer, method.words.shape) == ("conv3", (12, 16))  # 4 x 4 at 32 pixels
    assert make(encoder, info, layer="conv2").layer == "conv2"
    assert make(encoder, replace(info, size=64)).layer == "conv4"
    with pytest.raises(UserError, match="^bownet: layer: there is no 'conv5'; did you mean 'conv4'"):
        make(encoder, info, layer="conv5")


def test_rotations_by_hand(method, batches):
    """The teacher's phase: four turns, four classes, and nothing of the words."""
    method.eval()
    x = batches[0].views[0]
    with torch.no_grad():
        logged = method(batches[0], 0.0)
        weight = method.head[0].weight
        total = 0.0
        for turn, image in enumerate((x, x.transpose(2, 3).flip(2), x.flip(2, 3), x.transpose(2, 3).flip(3))):
            scores = method.encoder(image) @ (weight / weight.norm(dim=1, keepdim=True))[:4].T
            total -= float(scores.log_softmax(1)[:, turn].mean()) / 4
    assert float(logged["loss"]) == pytest.approx(total, rel=1e-4)


def test_the_phases_change_once_when_the_share_is_done(encoder, info, batches):
    method = make(encoder, info, teacher=0.4).train()
    steps, phases = 3, []
    for epoch in range(5):
        method.before_epoch(epoch, batches)
        phases.append(int(method.student))
        for step in range(steps):
            method.after_step((epoch * steps + step) / (5 * steps))
        assert float(method.done) == pytest.approx((epoch + 1) / 5)
    assert phases == [0, 0, 1, 1, 1]


def test_the_student_starts_afresh_and_the_teacher_is_frozen(method, batches):
    first = {name: tensor.clone() for name, tensor in method.encoder.state_dict().items()}
    method.train()
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(0.1)
        for _ in range(20):
            method(batches[0], 0.0)
    taught = {name: tensor.clone() for name, tensor in method.encoder.state_dict().items()}
    head = method.head[0].weight.detach().clone()
    method.done.fill_(0.9)
    method.before_epoch(1, batches)
    assert all(torch.equal(tensor, first[name]) for name, tensor in method.encoder.state_dict().items())
    assert not torch.equal(method.head[0].weight, head)
    assert method.head[0].weight.detach().norm(dim=1).mean() == pytest.approx(1, rel=0.1)  # longer ones hardly turn
    method(batches[0], 0.5)["loss"].backward()
    assert all(torch.equal(tensor, taught[name]) for name, tensor in method.teacher.state_dict().items())
    assert not method.teacher.training and method.encoder.training
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())


@pytest.mark.parametrize("histogram", ["counts", "binary"])
def test_words_and_histogram_by_scikit_learn(encoder, info, batches, histogram):
    method = student(make(encoder, info, histogram=histogram), batches).eval()
    with torch.no_grad():
        maps = method.teacher.maps(batches[0].views[0])["conv3"].numpy()
    target = method.target(batches[0]).numpy()
    want = np.zeros_like(target)
    for row, image in zip(want, maps, strict=True):
        word = pairwise_distances_argmin(image.reshape(16, 16).T, method.words.numpy())
        row += np.bincount(word, minlength=12)
    want = (want > 0).astype(float) if histogram == "binary" else want
    np.testing.assert_allclose(target, want / want.sum(1, keepdims=True), rtol=1e-6)
    assert (want > 0).sum(0).min() > 0  # every word is somewhere
    with torch.no_grad():
        logged = method(batches[0], 0.5)
        scores = log_softmax(method.scores(batches[0].views[1]).numpy(), axis=1)
    assert float(logged["loss"]) == pytest.approx(-(target * scores).sum(1).mean(), rel=1e-5)
    found = np.take_along_axis(target, scores.argmax(1)[:, None], 1) > 0
    assert float(logged["accuracy"]) == pytest.approx(found.mean())


def test_few_images_may_make_the_words(encoder, info, batches):
    seen = []
    method = make(encoder, info, images=32)
    method.done.fill_(0.9)
    method.before_epoch(1, (seen.append(i) or batch for i, batch in enumerate(batches)))
    assert seen == [0]
    with pytest.raises(UserError, match="^bownet: words: 600 clusters need as many vectors, and there are only 512"):
        student(make(encoder, info, words=600, images=32), batches)


def test_the_phase_the_teacher_and_the_words_survive_a_resume(encoder, info, batches):
    method = student(make(encoder, info), batches)
    again = make(build({"name": "conv4", "width": 16}, (0.5,) * 3, (0.3,) * 3), info)
    again.load_state_dict(method.state_dict())
    again.before_epoch(2, iter(()))  # the words stay
    again.train(), method.train()
    assert torch.equal(again(batches[0], 0.5)["loss"], method(batches[0], 0.5)["loss"])


def second_phase(rank, world=2):
    """State and words after the change of phases, with a part of each of two batches."""
    torch.manual_seed(0)
    encoder = build({"name": "conv4", "width": 8}, (0.5,) * 3, (0.3,) * 3)
    method = make(encoder, DataInfo(n=32, classes=2, size=32, mean=(0.5,) * 3, std=(0.3,) * 3))
    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = [part.chunk(world)[rank] for part in torch.randperm(32, generator=torch.Generator().manual_seed(1)).chunk(2)]
    method.done.fill_(0.9)
    method.before_epoch(1, [Batch([images[row]] * 2, row, row, Key(0, 1)) for row in rows])
    return method.state_dict()


def test_all_processes_find_the_words_of_one(tmp_path):
    torch.set_num_threads(1)
    want = second_phase(0, world=1)
    first, second = together(tmp_path, 2, second_phase)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    torch.testing.assert_close(first["words"], want["words"], rtol=1e-4, atol=1e-6)
    assert len(want["words"].unique(dim=0)) == 12


def test_the_student_is_trained_and_the_teacher_is_not(method, batches):
    method = student(method.train(), batches)
    method(batches[0], 0.5)["loss"].backward()
    assert all(p.grad.any() for p in (*method.encoder.parameters(), *method.head.parameters()))
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_students_loss_falls(encoder, info, batches, fit):
    method = student(make(encoder, info, words=48).train(), batches)
    first = fit(method, RECIPES["none"].views, steps=4, n=32, lr=0.02)
    assert fit(method, RECIPES["none"].views, steps=24, n=32, lr=0.02) < first - 0.3


def test_shuffled_words_are_worse(encoder, info, batches, fit):
    method = student(make(encoder, info, words=48).train(), batches)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, RECIPES["none"].views, steps=24, n=32, lr=0.02)
    method.load_state_dict(state)
    own = method.target
    method.target = lambda batch: own(batch).roll(1, dims=0)
    assert true < fit(method, RECIPES["none"].views, steps=24, n=32, lr=0.02) - 0.05


def test_pictures_of_both_phases(method, batches):
    with torch.no_grad():
        assert list(method.eval().show(batches[0])) == ["image", "turned"]
        shown = student(method, batches).eval().show(batches[0])
    assert list(shown) == ["image", "perturbed", "words", "words found"]
    assert torch.equal(shown["perturbed"], batches[0].views[1])
    colours = shown["words"][:, :, ::8, ::8].flatten(2)
    assert torch.equal(shown["words"][:, :, 7::8, 7::8].flatten(2), colours)  # a place is a square of 8 pixels
    distinct = (method.target(batches[0]) > 0).sum(1)
    assert [len(image.T.unique(dim=0)) for image in colours] == distinct.tolist()
    white = (shown["words found"] == 1).all(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.equal(shown["words found"][~white], shown["words"][~white])
    assert 0 < white.float().mean() < 1


def test_bounds():
    for wrong in ({"teacher": 0.0}, {"teacher": 1.0}, {"words": 1}, {"histogram": "tf-idf"}):
        with pytest.raises(ValidationError):
            Settings(**wrong)
