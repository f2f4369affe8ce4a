"""Random views of the batched augmentation and of torchvision, image by image: the same distribution, the same use."""

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from miyagi import params
from miyagi.data.augment import augment
from miyagi.data.loader import Loader
from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.rng import Key
from miyagi.methods import base as methods
from miyagi.metrics.knn import knn
from miyagi.nn.encoders.base import build
from miyagi.paths import Paths
from miyagi.recipes import RECIPES
from miyagi.settings import Blur, Crop, Jitter, Pretrain, Rotate, ViewRecipe
from miyagi.stages import prepare
from miyagi.train.features import features
from miyagi.train.loop import Trainer
from tests.conftest import SMALL
from tests.data import reference

DRAWS, S = 500, 24
CASES = {
    "crop": ViewRecipe(crop=Crop()),
    "pad": ViewRecipe(pad=4),
    "rotate": ViewRecipe(rotate=Rotate(p=0.7, degrees=60)),
    "brightness": ViewRecipe(jitter=Jitter(brightness=0.8, contrast=0, saturation=0, hue=0)),
    "contrast": ViewRecipe(jitter=Jitter(brightness=0, contrast=0.8, saturation=0, hue=0)),
    "saturation": ViewRecipe(jitter=Jitter(brightness=0, contrast=0, saturation=0.8, hue=0)),
    "hue": ViewRecipe(jitter=Jitter(brightness=0, contrast=0, saturation=0, hue=0.5)),
    "jitter": ViewRecipe(jitter=Jitter(p=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)),
    "flip_gray": ViewRecipe(flip=0.3, gray=0.4),
    "blur": ViewRecipe(blur=Blur(p=0.8)),
    "solarize": ViewRecipe(solarize=0.3, solarize_threshold=0.4),
    **{f"{name}/{i}": view for name in ("simclr", "moco_v1", "byol") for i, view in enumerate(RECIPES[name].views)},
}


def figures(views):
    """Numbers of each view that an operation would move: place, colours, contrast, detail, a corner's colour."""
    side = torch.linspace(-1, 1, S)
    mean = views.mean((1, 2, 3))
    return {
        "mean": mean,
        "deviation": views.std((1, 2, 3)),
        "across": (views * side).mean((1, 2, 3)),
        "down": (views * side[:, None]).mean((1, 2, 3)),
        "chroma": (views.amax(1) - views.amin(1)).mean((1, 2)),
        "red": views[:, 0].mean((1, 2)) - mean,
        "detail": views.diff(dim=3).square().mean((1, 2, 3)),
        "corner": views[:, 1, 0, 0],
    }


@pytest.mark.parametrize("case", CASES)
def test_views_have_torchvisions_distribution(case):
    torch.set_num_threads(1)  # operations on one small image
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(S, S), mode="bicubic").clamp(0, 1)
    images = (fine * 255).to(torch.uint8).expand(DRAWS, -1, -1, -1)
    arguments = (images, torch.arange(DRAWS), Key(0, 0), "v", CASES[case], S)
    got, want = figures(augment(*arguments)), figures(reference.augment(*arguments))
    for name in want:
        # Rounding makes other numbers of one value; both sides are rounded to what a byte could not show.
        ours, theirs = ((figure[name] * 1e4).round().numpy() for figure in (got, want))
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4, name


SEEDS = 6


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1,000 training and 431 validation images of real digits as betons."""
    paths = Paths(tmp_path_factory.mktemp("thousand"))
    dataset = {"source": "digits", "path": "x", "size": 32, "train_limit": 1000, "val_fraction": 0.3, "test_limit": 10}
    paths.params.write_text(yaml.safe_dump(SMALL | {"datasets": {"digits": dataset}}))
    prepare.run("digits", params.read(paths.params).datasets["digits"], paths)
    return paths


def accuracy(paths, seed, recipe, scratch):
    """kNN accuracy in percent of a small SimCLR encoder on the validation images, after training on the others."""
    info = data_info(read_manifest(paths.manifest("digits")))
    torch.manual_seed(seed)
    encoder = build({"name": "conv4", "width": 16, "grid": 1}, info.mean, info.std)
    method = methods.build("simclr", {"temperature": 0.2, "head": {"width": 64, "out": 32}}, encoder, info)
    train, val = (paths.beton("digits", split) for split in ("train", "val"))
    settings = Pretrain(epochs=16, batch_size=100, lr=4e-3)
    loader = Loader(train, 100, seed=seed, drop_last=True)
    Trainer(method, loader, [recipe], settings, size=info.size, seed=seed).fit(scratch)
    encoder.eval()
    bank, labels = features(encoder, Loader(train, 500)())
    queries, truth = features(encoder, Loader(val, 500)())
    return 100 * float((knn(bank, labels, queries, 20) == truth).mean())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_simclr_learns_the_same_from_either(thousand, monkeypatch, tmp_path):
    """The noise band is the 99 % interval of the mean difference over seeds; each seed starts both from one encoder.

    That it could have shown a difference, the same training without augmentation shows: it lies outside.
    """

    def trained(function, recipe, name):
        def views(images, index, key, wanted, **more):
            return [function(x, index, key, *view, **more) for x, view in zip(images, wanted, strict=True)]

        torch.set_num_threads(1)  # operations on one small image
        monkeypatch.setattr("miyagi.train.loop.augment_views", views)
        return np.array([accuracy(thousand, seed, recipe, tmp_path / f"{name}{seed}") for seed in range(SEEDS)])

    recipe = RECIPES["simclr"].views[0]
    batched = trained(augment, recipe, "batched")
    difference = batched - trained(reference.augment, recipe, "torchvision")
    band = stats.t.ppf(0.995, SEEDS - 1) * stats.sem(difference)
    control = trained(augment, RECIPES["none"].views[0], "none") - batched
    print(f"kNN {batched} %; minus torchvision's {difference}, band {band:.2f}; unaugmented minus batched {control}")
    assert 0 < abs(difference.mean()) < band < abs(control.mean())
