"""The other side does the same work: the same operations, the same network, and it learns."""

import pytest
import torch
from lightly.transforms.gaussian_blur import GaussianBlur
from PIL import Image
from torchvision.transforms import v2

from benchmarks import peers
from miyagi.errors import UserError
from miyagi.nn.encoders.conv4 import Conv4, Settings
from miyagi.recipes import RECIPES


def test_the_plain_conv4_is_ours():
    mean, std = peers.IMAGENET["mean"], peers.IMAGENET["std"]
    ours, plain = Conv4(Settings(width=8), mean, std), peers.conv4(8)
    theirs = [parameter for name, parameter in ours.state_dict().items() if name not in ("mean", "std")]
    state = plain.state_dict()
    assert len(theirs) == len(state)
    plain.load_state_dict(dict(zip(state, theirs, strict=True)))
    x = torch.rand(6, 3, 32, 32)
    normalized = v2.functional.normalize(x, mean, std)
    for mode in (True, False):
        ours.train(mode)
        plain.train(mode)
        torch.testing.assert_close(plain(normalized).flatten(1), ours(x))


def steps(transform):
    """A transform's operations by their class."""
    found = {}
    for step in transform.transforms:
        found[type(step)] = step
        if isinstance(step, v2.RandomApply):
            found[type(step.transforms[0])] = (step.p, step.transforms[0])
    return found


@pytest.mark.parametrize("system", ["lightly", "torchvision"])
@pytest.mark.parametrize("name", ["simclr_small", "simclr"])
def test_transforms_have_the_recipes_strengths(system, name):
    view = RECIPES[name].views[0]
    if system == "lightly":
        first, second = peers.lightly_transform(peers.recipe(name), 32).transforms
        assert first is second
        found = steps(first.transform)
        blur = found[GaussianBlur].prob, found[GaussianBlur].sigmas
        assert blur == ((view.blur.p, view.blur.sigma) if view.blur else (0.0, (0.1, 2.0)))
    else:
        found = steps(peers.TorchvisionTransform(peers.recipe(name), 32).transform)
        assert (v2.GaussianBlur in found) == (view.blur is not None)
        if view.blur:
            p, blur = found[v2.GaussianBlur]
            assert (p, tuple(blur.sigma), blur.kernel_size) == (view.blur.p, view.blur.sigma, (3, 3))
    crop = found[v2.RandomResizedCrop]
    assert (tuple(crop.size), tuple(crop.scale)) == ((32, 32), view.crop.scale)
    assert tuple(crop.ratio) == pytest.approx(view.crop.ratio)
    assert found[v2.RandomHorizontalFlip].p == view.flip
    assert found[v2.RandomGrayscale].p == view.gray
    p, jitter = found[v2.ColorJitter]
    assert p == view.jitter.p
    for strength in ("brightness", "contrast", "saturation"):
        size = getattr(view.jitter, strength)
        assert tuple(getattr(jitter, strength)) == pytest.approx((1 - size, 1 + size))
    assert tuple(jitter.hue) == pytest.approx((-view.jitter.hue, view.jitter.hue))


def test_a_recipe_that_lightly_cannot_do_is_refused():
    for name in ("byol", "weak"):
        with pytest.raises(UserError, match=f"SimCLRTransform cannot do '{name}'"):
            peers.recipe(name)
    assert peers.recipe("simclr").crop.scale == (0.08, 1.0)


@pytest.fixture
def folder(digits, tmp_path):
    images, labels = digits
    for position in range(160):
        part = tmp_path / str(int(labels[position]))
        part.mkdir(exist_ok=True)
        Image.fromarray(images[position].permute(1, 2, 0).numpy()).save(part / f"{position:03d}.png")
    return tmp_path


@pytest.mark.parametrize("system", ["lightly", "torchvision"])
def test_loader(folder, system):
    view = peers.recipe("simclr_small")
    loader = peers.loader(system, str(folder), view, size=32, batch=64, workers=0)
    batches = list(loader)
    assert len(batches) == 2  # the smaller last one is dropped
    first, second = batches[0][0]
    assert first.shape == second.shape == (64, 3, 32, 32)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert len(peers.loader(system, str(folder), view, size=32, batch=64, workers=0, images=96).dataset) == 96


def test_lightly_learns_and_is_scored_by_our_knn(folder):
    torch.set_num_threads(1)
    model = peers.model(0, 8, 32)
    loader = peers.loader("lightly", str(folder), peers.recipe("simclr_small"), size=32, batch=80, workers=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seconds = list(peers.train(model, loader, 2, temperature=0.5, lr=0.06, momentum=0.9, weight_decay=5e-4))
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert not torch.equal(before["backbone.0.weight"], model.backbone[0].weight)
    # A query's nearest neighbour among themselves is itself, so k = 1 must find its label.
    assert peers.accuracy(model, str(folder), str(folder), k=1, temperature=0.1, workers=0) == 100.0
    features, labels = peers.features(model, str(folder), 0)
    assert features.shape == (160, 32)
    assert sorted(labels.tolist()) == labels.tolist()


def test_a_loss_that_is_not_finite(folder):
    model = peers.model(0, 8, 32)
    noise = [((torch.full((8, 3, 32, 32), torch.inf),) * 2,)]
    with pytest.raises(UserError, match=r"lower pretraining\.lr"):
        list(peers.train(model, noise, 1, temperature=0.5, lr=0.06, momentum=0.9, weight_decay=0.0))
