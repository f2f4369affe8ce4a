"""The attacks against gradients and optima worked out by hand, and the protocol."""

import numpy as np
import pytest
import torch
from torch import nn

from miyagi.protocols.adversarial import Settings, as_network, evaluate, fgsm, gradient, pgd
from miyagi.protocols.base import Features, Fitted
from miyagi.protocols.classifier import Probe
from miyagi.protocols.linear_fits import logistic
from miyagi.train.features import features

SETTINGS = Settings(eps=[2, 16], steps=4, images=60, c=[1e-6, 0.1])


@pytest.fixture
def linear():
    """Logits W x of 3 x 2 x 2 images in two classes: the gradient's sign is known in closed form."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    return model.requires_grad_(False)


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(9, 3, 2, 2), torch.arange(9) % 2


def worst(linear, x, y, eps):
    """Two classes, linear: the loss grows along the difference of the weights, for every image alike."""
    w = linear[1].weight
    direction = (w[1 - y] - w[y]).sign().reshape(x.shape)
    return (x + eps * direction).clamp(0, 1)


def test_the_gradient_by_hand(linear, images):
    x, y = images
    w, p = linear[1].weight, linear(x).softmax(1)
    by_hand = (1 - p.gather(1, y[:, None])) * (w[1 - y] - w[y])
    torch.testing.assert_close(gradient(linear, x, y).flatten(1), by_hand)


def test_fgsm_and_pgd_find_the_worst_image_of_a_linear_model(linear, images):
    x, y = images
    expected = worst(linear, x, y, 0.1)
    torch.testing.assert_close(fgsm(linear, x, y, 0.1), expected)
    start = (x + 0.1 * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    torch.testing.assert_close(pgd(linear, x, y, 0.1, 0.05, 8, start), expected)


def test_no_attack_leaves_its_ball_or_the_range(make_task):
    task = make_task()
    model = nn.Sequential(task.encoder().eval(), nn.Linear(task.encoder().dim, 10)).requires_grad_(False)
    raw = next(task.loader("test", 40)())
    x = (raw.image / 255).contiguous(memory_format=torch.channels_last)
    start = (x + 0.03 * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    loss = nn.CrossEntropyLoss(reduction="none")
    for attacked in (fgsm(model, x, raw.label, 0.03), pgd(model, x, raw.label, 0.03, 0.01, 6, start)):
        assert (attacked - x).abs().max() <= 0.03 + 1e-6
        assert attacked.min() >= 0 and attacked.max() <= 1
        with torch.no_grad():
            assert (loss(model(attacked), raw.label) > loss(model(x), raw.label)).float().mean() > 0.9


def test_rows(make_task):
    outcomes = evaluate(make_task(), SETTINGS, 0)
    conditions = [("none", "0"), *((attack, eps) for attack in ("fgsm", "pgd") for eps in ("2/255", "16/255"))]
    assert [(o.split, o.condition["attack"], o.condition["eps"]) for o in outcomes] == [
        (split, *condition) for split in ("val", "test") for condition in conditions
    ]  # fmt: skip
    assert {len(o.scores) for o in outcomes} == {60}
    value = {tuple(o.condition.values()): o.scores.mean() for o in outcomes if o.split == "test"}
    for attack in ("fgsm", "pgd"):
        assert value["none", "0"] > value[attack, "2/255"] > value[attack, "16/255"]
    assert value["pgd", "16/255"] <= value["fgsm", "16/255"]
    assert value["none", "0"] > 50


def test_what_is_attacked_is_the_probe(make_task):
    """Features with other means and spreads; a class without a training image is never the answer."""
    task = make_task()
    probe = Probe.logistic(task, [0.1])
    network = as_network(probe, 10)
    raw = next(task.loader("test", 60)())
    logits = network((raw.image / 255).contiguous(memory_format=torch.channels_last))
    x, _ = features(probe.encoder, [raw])
    assert (logits.argmax(1).numpy() == probe.fitted.predict(x)).all()
    train = Features(*features(probe.encoder, task.loader("train")()))
    few = Features(train.x[train.y != 3], train.y[train.y != 3])
    fitted: Fitted = logistic(few, few, [0.1])
    lacking = as_network(Probe(probe.encoder, fitted), 10)
    answers = lacking((raw.image / 255).contiguous(memory_format=torch.channels_last)).argmax(1)
    assert (answers.numpy() == fitted.predict(x)).all() and 3 not in answers


def test_c_is_chosen_on_val(make_task, relabelled):
    one = SETTINGS.model_copy(update={"eps": [2], "attacks": ["fgsm"]})
    honest = evaluate(make_task(), one, 0)
    assert honest[0].chosen["c"] == 0.1
    other = np.random.default_rng(0).integers(0, 10, 200)
    leak = evaluate(make_task(paths=relabelled({"test": other})), one, 0)
    assert leak[0].chosen == honest[0].chosen
    assert [o.scores.tolist() for o in leak[:2]] == [o.scores.tolist() for o in honest[:2]]  # val
    assert leak[2].scores.mean() < 40 < honest[2].scores.mean()


def test_twice_the_same_bits(make_task):
    short = SETTINGS.model_copy(update={"c": [0.1], "eps": [4]})
    first, second = ([o.scores.tolist() for o in evaluate(make_task(), short, 0)] for _ in range(2))
    assert first == second
