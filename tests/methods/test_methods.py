"""What holds for every method; tests of one method's own target and state stand in its own file."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.methods.base import build
from miyagi.nn.encoders import base as encoders
from miyagi.params import views
from miyagi.registry import METHODS
from miyagi.settings import Pretrain
from miyagi.train.loop import optimizer

TRAINED = [name for name in METHODS.entries if METHODS.settings(name).trains]
SMALL = {
    "simclr": {"temperature": 0.2, "recipe": "simclr_small"},
    "npid": {"loss": "softmax", "temperature": 0.2, "proximal": 0.1, "recipe": "simclr_small"},
    "pirl": {"temperature": 0.2, "number": 256, "head": {"kind": "linear", "out": 32}},
    "cmc": {"temperature": 0.2, "loss": "info_nce", "negatives": "batch", "head": {"kind": "linear", "out": 32}},
    "exemplar": {"loss": "triplet", "head": {"kind": "linear", "out": 32}},
    "deep_infomax": {"alpha": 0.5, "width": 32, "head": {"width": 32, "out": 16}},
    "cpc": {"patch": 0.5, "steps": 2, "skip": 0, "width": 32, "layers": 2, "number": 512},
    "moco": {"queue": 512, "momentum": 0.99, "recipe": "simclr_small"},
    "relative_patch": {"width": 64, "head": {"kind": "linear", "out": 64}},
    "jigsaw": {"permutations": 300, "width": 128, "head": {"kind": "linear", "out": 32}},
    "colorization": {"bins": 20.0, "width": 16},
    "split_brain": {"bins": 20.0, "light_bins": 20, "width": 16},
    "denoising_ae": {"width": 16},
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "deepcluster": {"clusters": 4},
    "bownet": {"words": 12},
    "byol": {"recipe": "simclr_small", "head": {"width": 64, "out": 32, "batch_norm": True}, "predictor_width": 64},
    "simsiam": {
        "recipe": "simclr_small",
        "predictor_width": 16,
        "head": {"width": 64, "depth": 2, "out": 64, "batch_norm": True, "out_batch_norm": True},
    },
    "barlow_twins": {"recipe": "simclr_small", "head": {"width": 64, "out": 64, "out_batch_norm": True}},
    "vicreg": {"recipe": "simclr_small", "head": {"width": 64, "out": 64, "batch_norm": True}},
    "dino": {
        "outputs": 64,
        "small": 1,
        "frozen_epochs": 0,
        "momentum": 0.9,
        "head": {"width": 64, "out": 32, "activation": "gelu"},
    },
    "swav": {
        "recipe": "weak",
        "prototypes": 32,
        "small": 1,
        "frozen_epochs": 0,
        "queue": 64,
        "queue_epochs": 0,
        "head": {"width": 64, "out": 32, "batch_norm": True},
    },
}

VIT = {"name": "vit_tiny", "patch": 8, "width": 24, "depth": 1}
ENCODERS = {"mae": VIT}
"""What a method is tried on if not on Conv-4."""


@pytest.fixture(params=TRAINED)
def method(request, encoder, info):
    torch.manual_seed(0)
    if METHODS.settings(request.param).encoder_pair:
        encoder = encoders.build({"name": "pair", "of": {"name": "conv4", "width": 8}}, info.mean, info.std)
    info = replace(info, n=14 * 128)  # all that make_batch gives
    if request.param in ENCODERS:
        encoder = encoders.build(ENCODERS[request.param], info.mean, info.std)
    return build(request.param, SMALL.get(request.param, {}), encoder, info)


@pytest.fixture
def recipes(method, make_batch):
    """The method's recipes; an epoch has begun, as it does in the loop."""
    name = type(method).__module__.rpartition(".")[2]
    found = views(SMALL.get(name, {}).get("recipe", METHODS.settings(name)().recipe), {}, "test")
    method.before_epoch(0, (make_batch(method, found, epoch) for epoch in range(14)))
    return found


def step(method, optimiser, batch, progress=0.5):
    logged = method(batch, progress)
    optimiser.zero_grad()
    logged["loss"].backward()
    method.after_backward(progress)
    optimiser.step()
    method.after_step(progress)
    return float(logged["loss"].detach())


QUICK = ("supervised", "rotation", "simclr", "moco")
"""The methods of the default run; the other trainings of 64 steps are too many for every `make test`."""


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TRAINED], indirect=True
)
def test_a_few_steps_lower_the_loss(method, recipes, make_batch):
    optimiser = optimizer(method, Pretrain())
    for group in optimiser.param_groups:
        group["lr"] = 3e-3
    losses = [step(method, optimiser, make_batch(method, recipes, i)) for i in range(64)]
    # From the 16th step on: a queue is full of random keys, easy negatives, before. A task that is solved by then cannot
    # tell (20 permutations of jigsaw).
    assert sum(losses[-8:]) < 0.98 * sum(losses[16:24])


def test_the_embedding_does_not_collapse(method, recipes, make_batch):
    from miyagi.metrics.collapse import embedding_std

    optimiser = optimizer(method, Pretrain())
    for i in range(10):
        step(method, optimiser, make_batch(method, recipes, i))
    method.eval()
    with torch.no_grad():
        features = method.encoder(make_batch(method, recipes).views[0])
    assert embedding_std(features.numpy()) > 0.01


def test_the_loss_is_what_a_resume_makes_of_it(method, recipes, make_batch):
    """All that a step depends on is in the state: a copy that loads it goes on with the same numbers."""
    optimiser = optimizer(method, Pretrain())
    for i in range(3):
        step(method, optimiser, make_batch(method, recipes, i))
    state, optimiser_state = copy.deepcopy(method.state_dict()), copy.deepcopy(optimiser.state_dict())
    first = [step(method, optimiser, make_batch(method, recipes, i)) for i in (3, 4, 5)]
    method.load_state_dict(state)
    again = optimizer(method, Pretrain())
    again.load_state_dict(optimiser_state)
    assert [step(method, again, make_batch(method, recipes, i)) for i in (3, 4, 5)] == first


@torch.no_grad()
def test_show_gives_a_picture_an_image_and_column(method, recipes, make_batch):
    method.eval()
    state = copy.deepcopy(method.state_dict())
    batch = make_batch(method, recipes, n=5)
    shown = method.show(batch)
    assert shown
    for column, images in shown.items():
        assert images.shape[:2] == (5, 3) and images.shape[2] == images.shape[3], column
        assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1, column
        assert images.flatten(1).std() > 0.01, column
    assert all(torch.equal(images, shown[column]) for column, images in method.show(batch).items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in method.state_dict().items())


def tiny_encoder(name, patch):
    """What a method can train on at least; `patch`: the side of a ViT's patches."""
    described = VIT | {"patch": patch} if name == "mae" else {"name": "conv4", "width": 4}
    if METHODS.settings(name).encoder_pair:
        described = {"name": "pair", "of": described}
    return encoders.build(described, (0.5,) * 3, (0.3,) * 3)


@pytest.mark.parametrize("size", [28, 224])
@pytest.mark.parametrize("name", TRAINED)
def test_small_and_large_images(name, size):
    """A whole step, its hooks and the pictures: nothing takes images of 32 pixels for granted."""
    torch.manual_seed(0)
    encoder = tiny_encoder(name, 7 if size == 28 else 28)
    method = build(name, SMALL.get(name, {}), encoder, DataInfo(8, 10, size, (0.5,) * 3, (0.3,) * 3))
    images = torch.rand(8, 3, size, size)

    def batches():
        for index in torch.arange(8).chunk(2):
            views = [F.interpolate(images[index], view.size or size) for view in method.views]
            yield Batch(views, index, index, Key(0, 0))

    method.before_epoch(0, batches())
    batch = next(batches())
    logged = method(batch, 0.5)
    logged["loss"].backward()
    method.after_backward(0.5)
    method.after_step(0.5)
    assert all(torch.isfinite(value) for value in logged.values())
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in method.encoder.parameters())
    with torch.no_grad():
        shown = method.eval().show(batch)
    assert shown and all(images.shape[:2] == (4, 3) for images in shown.values())


WIDE = {"head": {"width": 64, "out": 64, "batch_norm": True}}
FEW_IMAGES = {"deepcluster": {"clusters": 2}, "bownet": {"words": 4}, "barlow_twins": WIDE, "vicreg": WIDE}
"""What 8 images can fill, and heads that are not 8,192 wide; every other setting is the method's default."""


@pytest.mark.parametrize("name", TRAINED)
def test_the_defaults_train_in_any_epoch(name, make_batch):
    """What begins or ends after some epochs (SwAV's queue, DINO's temperature) is reached only by long trainings."""
    torch.manual_seed(0)
    encoder = tiny_encoder(name, 8)
    settings = FEW_IMAGES.get(name, {})
    method = build(name, settings, encoder, DataInfo(8, 10, 32, (0.5,) * 3, (0.3,) * 3))
    recipes = views(METHODS.settings(name)(**settings).recipe, {}, "test")
    for epoch, progress in ((0, 0.0), (20, 0.1), (150, 0.75), (199, 0.999)):
        method.before_epoch(epoch, [make_batch(method, recipes, n=8)])
        for _ in range(2):
            method.zero_grad()
            logged = method(make_batch(method, recipes, n=4), progress)
            logged["loss"].backward()
            method.after_backward(progress)
            method.after_step(progress)
            assert all(torch.isfinite(value) for value in logged.values()), epoch


def test_every_parameter_has_exactly_one_group(method):
    groups = method.parameter_groups()
    grouped = [id(p) for group in groups for p in group["params"]]
    trained = [p for p in method.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(id(p) for p in trained)
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert groups[1]["weight_decay"] == 0


def test_the_gradient_reaches_encoder_and_head(method, recipes, make_batch):
    method(make_batch(method, recipes), 0.0)["loss"].backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_the_floor_does_not_train(encoder, info):
    floor = build("random", {}, encoder, info)
    assert list(floor.head) == []
    with pytest.raises(TypeError, match="does not train"):
        floor(None, 0.0)
