"""The loop on real digits: it learns, it resumes bit for bit, and it calls a method's hooks in order."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from miyagi.data.augment import augment
from miyagi.data.batch import View
from miyagi.data.betons import read_images, write_beton
from miyagi.data.loader import Loader
from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods import base as methods
from miyagi.methods.base import Method
from miyagi.nn.ema import frozen_copy
from miyagi.nn.encoders.base import build
from miyagi.params import views
from miyagi.registry import METHODS
from miyagi.settings import Crop, MethodSettings, Monitor, Pretrain, ViewRecipe
from miyagi.train import checkpoint
from miyagi.train.loop import Trainer, optimizer
from miyagi.train.monitor import OnlineMonitor
from miyagi.train.schedule import learning_rate

TRAINED = [name for name in METHODS.entries if METHODS.settings(name).trains]
OWN = {
    "npid": {"number": 64, "proximal": 1.0, "head": {"kind": "linear", "out": 16}},
    "pirl": {"number": 64, "head": {"kind": "linear", "out": 16}},
    "cmc": {"number": 64, "head": {"kind": "linear", "out": 16}},
    "exemplar": {"head": {"kind": "linear", "out": 16}},
    "cpc": {"patch": 0.5, "steps": 2, "skip": 0, "width": 16, "layers": 2, "number": 256},
    "deep_infomax": {"alpha": 0.5, "width": 16, "head": {"width": 16, "out": 8}},
    "moco": {"queue": 128, "momentum": 0.9},
    "relative_patch": {"width": 32, "head": {"kind": "linear", "out": 16}},
    "jigsaw": {"permutations": 20, "width": 32, "head": {"kind": "linear", "out": 16}},
    "colorization": {"bins": 20.0, "width": 8},
    "split_brain": {"bins": 20.0, "light_bins": 20, "width": 8},
    "denoising_ae": {"width": 8},
    "mae": {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2},
    "deepcluster": {"clusters": 8},
    "bownet": {"words": 16, "teacher": 0.6},
    "byol": {"head": {"width": 16, "out": 8, "batch_norm": True}, "predictor_width": 16},
    "simsiam": {"head": {"width": 16, "out": 16, "batch_norm": True, "out_batch_norm": True}, "predictor_width": 8},
    "barlow_twins": {"head": {"width": 16, "out": 16, "batch_norm": True, "out_batch_norm": True}},
    "vicreg": {"head": {"width": 16, "out": 16, "batch_norm": True}},
    "dino": {"outputs": 32, "small": 1, "head": {"width": 16, "out": 16, "activation": "gelu"}},
    "swav": {"prototypes": 16, "small": 1, "queue": 64, "queue_epochs": 0, "head": {"width": 16, "out": 16}},
}
RESUMED = [pytest.param(name, {}, id=name) for name in TRAINED]
# BoWNet's student begins with the third epoch, which is where the training goes on; here it has begun before that.
RESUMED.append(pytest.param("bownet", {"teacher": 0.3}, id="bownet_student"))
IMAGES, BATCH = 256, 64


@pytest.fixture(scope="module")
def loader(project):
    """One for all: a loader's order depends on its seed and the epoch alone (tests/data/test_loader.py)."""
    return Loader(project.beton("digits", "train"), BATCH, seed=3, drop_last=True)


@pytest.fixture(scope="module")
def in_colour(coloured, tmp_path_factory):
    """The same for methods that learn from colours."""
    file = tmp_path_factory.mktemp("coloured") / "train.beton"
    write_beton(file, coloured[0][:IMAGES].permute(0, 2, 3, 1).numpy(), coloured[1][:IMAGES].numpy())
    return Loader(file, BATCH, seed=3, drop_last=True)


@pytest.fixture(scope="module")
def monitor(project):
    train, val = project.beton("digits", "train"), project.beton("digits", "val")
    return OnlineMonitor(Monitor(), Loader(train, 64, limit=64), Loader(val, 64))


@pytest.fixture
def make(loader, in_colour, project):
    """make("simclr", epochs=3): a trainer with a fresh method."""
    grey = data_info(read_manifest(project.manifest("digits")))

    def trainer(name, seed=0, precision="fp32", loader=loader, recipes=None, own=None, **settings):
        torch.manual_seed(seed)
        info, described = grey, {"name": "conv4", "width": 8, "grid": 2}
        if isinstance(name, str) and METHODS.settings(name).needs_color:
            info, loader = replace(grey, color=True), in_colour
        if isinstance(name, str) and METHODS.settings(name).encoder_pair:
            described = {"name": "pair", "of": {**described, "width": 4}}
        if name == "mae":
            described = {"name": "vit_tiny", "patch": 8, "width": 24, "depth": 1}
        encoder = build(described, info.mean, info.std)
        if isinstance(name, str):
            method = methods.build(name, OWN.get(name, {}) | (own or {}), encoder, info)
            recipes = views(METHODS.settings(name)().recipe, {}, "test")
        else:
            method = name(MethodSettings(), encoder, info)
        pretrain = Pretrain(**{"epochs": 3, "batch_size": BATCH, **settings})
        return Trainer(method, loader, recipes, pretrain, size=info.size, seed=seed, precision=precision)

    return trainer


def equal(a, b):
    """Bit for bit, tensors and whatever holds them."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


class Stop(Exception):
    """The test's kill."""


def test_simclr_learns(make, monitor, tmp_path):
    trainer = make("simclr", epochs=8, lr=5e-3)
    trainer.recipes = [ViewRecipe(crop=Crop(scale=(0.5, 1.0)))]  # a few epochs are too few for the paper's
    history = trainer.fit(tmp_path, monitor)
    losses = [row["loss"] for row in history]
    chance = math.log(2 * BATCH - 1)  # every other view of the batch is as likely as the right one
    assert losses[-1] < chance - 0.5
    assert losses[-1] < min(losses[:4])
    assert history[-1]["knn"] > 30


@pytest.mark.parametrize(("name", "own"), RESUMED)
def test_interrupted_and_resumed_is_bit_identical(make, monitor, tmp_path, capsys, name, own):
    whole = make(name, own=own)
    history = whole.fit(tmp_path / "whole", monitor)

    def stop(row, rate):
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        make(name, own=own).fit(tmp_path / "cut", monitor, stop)
    torch.randn(1000)  # another process has another generator
    resumed = make(name, own=own)
    for parameter in resumed.method.parameters():
        parameter.data.add_(1.0)  # nothing of what it was built with may stay
    assert equal(resumed.fit(tmp_path / "cut", monitor), history)
    assert "resuming after epoch 2 of 3" in capsys.readouterr().err
    assert equal(resumed.state(), whole.state())
    assert len(history) == 3


def test_killed_in_the_middle_of_an_epoch(make, tmp_path):
    whole = make("moco")
    whole.fit(tmp_path / "whole")
    cut, steps = make("moco"), itertools.count(1)
    after_step = cut.method.after_step

    def stop(progress):
        after_step(progress)
        if next(steps) == 6:  # the second step of the second epoch
            raise Stop

    cut.method.after_step = stop
    with pytest.raises(Stop):
        cut.fit(tmp_path / "cut")
    assert checkpoint.load(tmp_path / "cut")["epoch"] == 1
    resumed = make("moco")
    resumed.fit(tmp_path / "cut")
    assert equal(resumed.state(), whole.state())


def test_a_seed_decides_everything(make, tmp_path):
    first, again, other = make("simclr"), make("simclr"), make("simclr", seed=1)
    for name, trainer in (("first", first), ("again", again), ("other", other)):
        trainer.fit(tmp_path / name)
    assert equal(first.state(), again.state())
    assert first.history[0]["loss"] != other.history[0]["loss"]
    assert not equal(first.method.encoder.state_dict(), other.method.encoder.state_dict())


def test_the_monitor_does_not_touch_the_training(make, monitor, tmp_path):
    watched, alone = make("simclr"), make("simclr")
    watched.fit(tmp_path / "watched", monitor)
    alone.fit(tmp_path / "alone")
    assert equal(watched.method.state_dict(), alone.method.state_dict())


def test_bf16(make, tmp_path):
    full, half = make("simclr"), make("simclr", precision="bf16")
    full.fit(tmp_path / "full")
    half.fit(tmp_path / "half")
    assert all(p.dtype == torch.float32 for p in half.method.parameters())
    assert half.history[0]["loss"] != full.history[0]["loss"]
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.05)


def test_a_loss_that_is_not_finite(make, tmp_path):
    trainer = make("supervised", lr=1e30, optimizer="sgd", warmup_epochs=0.0)
    with pytest.raises(UserError, match=r"the loss is (nan|inf) in epoch 1: lower pretrain\.lr \(now 1e\+30\)"):
        trainer.fit(tmp_path)
    assert checkpoint.load(tmp_path) is None  # such a state is never resumed


def test_rows(make, monitor, tmp_path):
    trainer = make("simclr", monitor=Monitor(every=2))
    seen = []
    watch = OnlineMonitor(Monitor(every=2), monitor.train, monitor.val)

    def on_epoch(row, rate):
        assert checkpoint.load(tmp_path)["epoch"] == row["epoch"]  # what is told is safe already
        assert rate > 0
        seen.append(dict(row))

    history = trainer.fit(tmp_path, watch, on_epoch)
    always, looked = {"epoch", "lr", "loss", "accuracy", "mi_bound"}, {"knn", "std", "rank"}
    assert [set(row) for row in history] == [always, always | looked, always | looked]
    assert history == seen == trainer.history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    steps = 3 * IMAGES / BATCH
    last = [learning_rate(trainer.settings, (4 * epoch - 0.5) / steps) for epoch in (1, 2, 3)]
    assert [row["lr"] for row in history] == pytest.approx(last)


def test_a_finished_training_is_not_trained_again(make, tmp_path):
    trainer = make("simclr", epochs=1, warmup_epochs=0.0)
    history = trainer.fit(tmp_path)
    again = make("simclr", epochs=1, warmup_epochs=0.0)
    assert again.fit(tmp_path) == history
    assert equal(again.state(), trainer.state())


class Recorder(Method[MethodSettings]):
    """Notes what the loop does to it."""

    views = (View("large"), View("small", size=16, recipe=1), View("again", recipe=2))

    def setup(self, settings, info):
        self.head = nn.Sequential(nn.Linear(self.encoder.dim, 1))
        self.events, self.before, self.trained, self.weights = [], [], [], []

    def before_epoch(self, epoch, batches):
        self.events.append(("before_epoch", epoch))
        self.before.append(list(batches))

    def forward(self, batch, progress):
        assert self.training
        self.events.append(("forward", progress))
        self.trained.append(batch)
        self.weights.append(self.head[0].weight.detach().clone())
        loss = self.head(self.encoder(batch.views[0])).square().mean()
        return {"loss": loss, "size": torch.tensor(float(len(batch)))}

    def after_backward(self, progress):
        self.events.append(("after_backward", progress))
        assert self.head[0].weight.grad.abs().sum() > 0
        assert torch.equal(self.head[0].weight, self.weights[-1])  # no step yet

    def after_step(self, progress):
        self.events.append(("after_step", progress))
        assert not torch.equal(self.head[0].weight, self.weights[-1])


@pytest.fixture(scope="module")
def ragged(project):
    """256 images in batches of 100, 100 and 56."""
    return Loader(project.beton("digits", "train"), 100, seed=3)


@pytest.fixture
def recorded(make, ragged, tmp_path):
    recipes = [ViewRecipe(), ViewRecipe(crop=Crop(), flip=0.5)]
    trainer = make(Recorder, loader=ragged, recipes=recipes, epochs=2, warmup_epochs=0.0)
    trainer.fit(tmp_path)
    return trainer


def test_hooks_are_called_in_order(recorded):
    expected = []
    for epoch in range(2):
        expected.append(("before_epoch", epoch))
        for step in range(3):
            progress = (3 * epoch + step) / 6
            expected += [(hook, progress) for hook in ("forward", "after_backward", "after_step")]
    assert recorded.method.events == [(name, pytest.approx(value)) for name, value in expected]


def test_batches_are_what_the_views_ask_for(recorded, digits):
    batches = recorded.method.trained
    assert [[tuple(view.shape) for view in batch.views] for batch in batches[:3]] == [
        [(n, 3, 32, 32), (n, 3, 16, 16), (n, 3, 32, 32)] for n in (100, 100, 56)
    ]
    assert [batch.key for batch in batches] == [Key(0, 0)] * 3 + [Key(0, 1)] * 3
    for epoch in (batches[:3], batches[3:]):
        assert sorted(torch.cat([batch.index for batch in epoch]).tolist()) == list(range(IMAGES))
    # Recipes are taken in turn: the first and the third view have the one that leaves images alone.
    assert all(torch.equal(batch.views[0], batch.views[2]) for batch in batches)
    assert not torch.equal(batches[0].views[1], nn.functional.interpolate(batches[0].views[0], size=16, mode="area"))
    # A second pass over an epoch, as k-means needs it, sees the very same views.
    passed = [batch for epoch in recorded.method.before for batch in epoch]
    assert all(
        equal([*a.views, a.index, a.label], [*b.views, b.index, b.label]) for a, b in zip(passed, batches, strict=True)
    )


class AsksBefore(Recorder):
    """Wants the images as they are before an epoch, and something else in it."""

    views = (View("image"),)
    views_before = (View("stored", recipe=None),)


def test_a_method_may_ask_for_other_views_before_an_epoch(make, ragged, project, tmp_path):
    stored = read_images(project.beton("digits", "train"), range(IMAGES))[0]
    stored = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
    trainer = make(AsksBefore, loader=ragged, recipes=[ViewRecipe(crop=Crop(), flip=0.5)], epochs=2, warmup_epochs=0.0)
    trainer.fit(tmp_path)
    trained = iter(trainer.method.trained)
    for epoch, batches in enumerate(trainer.method.before):
        for batch in batches:
            assert torch.equal(batch.views[0], stored[batch.index])
            then = next(trained)
            assert batch.key == then.key == Key(0, epoch) and torch.equal(batch.index, then.index)
            assert not torch.allclose(batch.views[0], then.views[0], atol=0.1)


class KeepsItsStart(Recorder):
    """What it trains is not what it gives downstream."""

    def setup(self, settings, info):
        super().setup(settings, info)
        self.start = frozen_copy(self.encoder)

    def downstream(self):
        return self.start, self.head


def test_the_monitor_looks_at_what_downstream_gets(make, ragged, tmp_path):
    trainer, seen = make(KeepsItsStart, loader=ragged, recipes=[ViewRecipe()], epochs=2, warmup_epochs=0.0), []
    trainer.fit(tmp_path, lambda encoder, epoch, last: seen.append((encoder, epoch, last)) or {})
    assert seen == [(trainer.method.start, 1, False), (trainer.method.start, 2, True)]


def test_means_are_over_images_not_over_batches(recorded):
    assert [row["size"] for row in recorded.history] == pytest.approx([(100**2 + 100**2 + 56**2) / 256] * 2)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_trains_what_should_be_trained(make, name, kind):
    trainer = make("moco", optimizer=name, weight_decay=0.5, momentum=0.7)
    decayed, free = trainer.optimizer.param_groups
    assert isinstance(trainer.optimizer, kind)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4} and {p.ndim for p in free["params"]} == {1}
    held = {id(p) for group in (decayed, free) for p in group["params"]}
    assert held == {id(p) for part in (trainer.method.encoder, trainer.method.head) for p in part.parameters()}
    assert name == "adamw" or decayed["momentum"] == 0.7


def test_an_empty_group_is_left_out(make):
    method = make("simclr").method
    for parameter in method.parameters():
        parameter.requires_grad_(parameter.ndim > 1)
    assert len(optimizer(method, Pretrain()).param_groups) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_images_that_the_decoder_cuts_are_augmented_as_squares_are(make, digits, tmp_path, workers):
    """Squares of 48 pixels, shown at 32: cut one by one by the loader, or all together by `augment`."""
    large = torch.nn.functional.interpolate(digits[0][:80].float(), size=48).round().to(torch.uint8)
    write_beton(tmp_path / "x.beton", large.permute(0, 2, 3, 1).numpy(), digits[1][:80].numpy())
    cut = make("simclr", loader=Loader(tmp_path / "x.beton", 32, seed=3, size=32, workers=workers))
    cut.recipes = [ViewRecipe(crop=Crop(scale=(0.2, 1.0)), flip=0.5), ViewRecipe(flip=0.5)]
    seen = 0
    for batch in cut.batches(1):
        for view, images in zip(cut.method.views, batch.views, strict=True):
            recipe = cut.recipes[view.recipe % 2]
            expected = augment(large[batch.index], batch.index, Key(0, 1), view.name, recipe, 32)
            assert images.shape == expected.shape == (len(batch), 3, 32, 32)
            assert (images - expected).abs().max() <= 1.5 / 255  # the decoder's results have 8 bits
        assert torch.equal(batch.label, digits[1][:80][batch.index])
        seen += len(batch)
    assert seen == 80


class Collapses(Method):
    """Loses the embedding in its second epoch."""

    views = (View("only"),)

    def before_epoch(self, epoch, batches):
        if epoch == 1:
            with torch.no_grad():
                self.encoder.blocks["conv4"][1].weight.zero_()
                self.encoder.blocks["conv4"][1].bias.fill_(1.0)

    def forward(self, batch, progress):
        return {"loss": 0 * self.encoder(batch.views[0]).sum()}


def test_a_collapsed_training_goes_on_or_stops(make, monitor, tmp_path, capsys):
    settings = {"recipes": [ViewRecipe()], "epochs": 4, "weight_decay": 0.0}
    assert len(make(Collapses, **settings).fit(tmp_path / "on", monitor)) == 4
    assert "stopped" not in capsys.readouterr().err
    stopping = make(Collapses, **settings, stop_on_collapse=True)
    history = stopping.fit(tmp_path / "stop", monitor)
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[0]["std"] > 0.01 > history[1]["std"]
    told = [line for line in capsys.readouterr().err.splitlines() if "stopped" in line]
    assert told == ["stopped after epoch 2 of 4: the embedding has collapsed (pretrain.stop_on_collapse)"]
    # Killed before its outs were written: the next run does not train on, and keeps the same.
    again = make(Collapses, **settings, stop_on_collapse=True)
    assert again.fit(tmp_path / "stop", monitor) == history
    assert equal(again.method.state_dict(), stopping.method.state_dict())
