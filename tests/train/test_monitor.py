"""The monitor's figures against a direct computation on the same images."""

import numpy as np
import pytest
import torch

from miyagi.data.augment import augment
from miyagi.data.betons import read_images
from miyagi.data.loader import Loader
from miyagi.data.rng import Key
from miyagi.nn.encoders.conv4 import Conv4, Settings
from miyagi.settings import Crop, Monitor, ViewRecipe
from miyagi.train.monitor import OnlineMonitor

TRAIN, VAL = 100, 50


@pytest.fixture(scope="module")
def loaders(project):
    train, val = project.beton("digits", "train"), project.beton("digits", "val")
    return Loader(train, 64, limit=TRAIN), Loader(val, 64, limit=VAL)


def direct(encoder, file, n):
    images, labels = read_images(file, range(n))
    encoder.eval()
    with torch.no_grad():
        return encoder(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).double().numpy(), labels


def test_values(encoder, loaders, project):
    found = OnlineMonitor(Monitor(k=7), *loaders)(encoder, 1, False)
    bank, labels = direct(encoder, project.beton("digits", "train"), TRAIN)
    queries, truth = direct(encoder, project.beton("digits", "val"), VAL)
    unit_bank, unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    hits = 0
    for query, label in zip(unit, truth, strict=True):
        cosine = unit_bank @ query
        nearest = np.argsort(-cosine)[:7]
        votes = np.bincount(labels[nearest], np.exp(cosine[nearest] / 0.1), 10)
        hits += votes.argmax() == label
    assert found["knn"] == pytest.approx(100 * hits / VAL)
    assert found["knn"] > 50  # of real digits, so no class is guessed
    assert found["std"] == pytest.approx(unit.std(0).mean(), rel=1e-4)
    values = np.linalg.svd(queries, compute_uv=False)
    share = values / values.sum()
    assert found["rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)


def test_collapse_warns(encoder, loaders, capsys):
    monitor = OnlineMonitor(Monitor(), *loaders)
    assert monitor(encoder, 1, False)["std"] > 0.01
    assert capsys.readouterr().err == ""
    with torch.no_grad():  # every image becomes the same vector
        encoder.blocks["conv4"][1].weight.zero_()
        encoder.blocks["conv4"][1].bias.fill_(1.0)
    found = monitor(encoder, 3, False)
    assert found["std"] == pytest.approx(0, abs=1e-6) and found["rank"] == pytest.approx(1, abs=1e-3)
    warning = capsys.readouterr().err
    assert "collapsed after epoch 3" in warning and "pretrain.monitor.collapse_std" in warning
    assert len(warning.splitlines()) == 1
    assert found["collapsed"] == 1


def test_the_threshold_is_told_for_256_dimensions(loaders, capsys):
    """Of 1024 it is half as high, as is the standard deviation of an embedding that is as spread out."""
    torch.manual_seed(0)
    encoder = Conv4(Settings(width=256), (0.5,) * 3, (0.3,) * 3)
    std = OnlineMonitor(Monitor(), *loaders)(encoder, 1, False)["std"]
    capsys.readouterr()
    for told, collapsed in ((1.98 * std, 0), (2.02 * std, 1)):
        found = OnlineMonitor(Monitor(collapse_std=told), *loaders)(encoder, 1, False)
        assert found.get("collapsed", 0) == collapsed
        assert ("told for 256 dimensions or fewer; here are 1024" in capsys.readouterr().err) == collapsed


@pytest.mark.parametrize(("every", "looked"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (9, [5]), (0, [])])
def test_every_so_many_epochs_and_the_last(encoder, loaders, every, looked):
    monitor = OnlineMonitor(Monitor(every=every), *loaders)
    found = {epoch: monitor(encoder, epoch, epoch == 5) for epoch in range(1, 6)}
    assert [epoch for epoch, figures in found.items() if figures] == looked
    assert all(set(figures) == {"knn", "std", "rank"} for figures in found.values() if figures)


def test_more_neighbours_than_images(encoder, loaders):
    most = OnlineMonitor(Monitor(k=TRAIN), *loaders)(encoder, 1, False)
    assert OnlineMonitor(Monitor(k=5000), *loaders)(encoder, 1, False) == most


def test_training_goes_on_in_training_mode(encoder, loaders):
    encoder.train()
    OnlineMonitor(Monitor(), *loaders)(encoder, 1, False)
    assert encoder.training


RECIPES = [ViewRecipe(crop=Crop(), flip=0.5), ViewRecipe(gray=1.0)]
QUANTILES = {f"{kind}_q{level}" for kind in ("pos", "neg") for level in ("05", "25", "50", "75", "95")}
PAIRED = {"alignment", "uniformity"} | QUANTILES


@pytest.mark.parametrize("recipes", [RECIPES, RECIPES[:1]])
@pytest.mark.parametrize("pairs", [30, 500])
def test_pairs(encoder, loaders, project, recipes, pairs):
    """The figures of two views of the first images of val, against the same views made and encoded here."""
    found = OnlineMonitor(Monitor(pairs=pairs), *loaders, recipes)(encoder, 1, False)
    images, _ = read_images(project.beton("digits", "val"), range(VAL))
    images, n = torch.from_numpy(images).permute(0, 3, 1, 2), min(pairs, VAL)
    encoder.eval()
    views = []
    for name, recipe in (("first", recipes[0]), ("second", recipes[-1])):
        with torch.no_grad():
            x = encoder(augment(images[:n], torch.arange(n), Key(0, 0), f"monitor/{name}", recipe, 32))
        views.append(torch.nn.functional.normalize(x.double(), dim=1))
    want = {
        "alignment": (views[0] - views[1]).square().sum(1).mean(),
        "uniformity": sum(torch.pdist(x).square().mul(-2).exp().mean().log() for x in views) / 2,
        "pos_q50": (views[0] * views[1]).sum(1).quantile(0.5),
    }
    assert set(found) == {"knn", "std", "rank"} | PAIRED
    assert {name: found[name] for name in want} == pytest.approx(
        {k: float(v) for k, v in want.items()}, rel=1e-3, abs=1e-4
    )
    assert found["pos_q50"] > found["neg_q50"]
    assert found["neg_q05"] < found["neg_q50"] < found["neg_q95"]


def test_pairs_are_the_same_at_each_look_and_change_nothing_else(encoder, loaders):
    monitor = OnlineMonitor(Monitor(), *loaders, RECIPES)
    first = monitor(encoder, 1, False)
    assert monitor(encoder, 2, False) == first
    for other in (OnlineMonitor(Monitor(), *loaders), OnlineMonitor(Monitor(pairs=0), *loaders, RECIPES)):
        assert other(encoder, 1, False) == {name: first[name] for name in ("knn", "std", "rank")}


def test_a_collapsed_embedding_is_aligned_and_not_uniform(encoder, loaders):
    with torch.no_grad():
        encoder.blocks["conv4"][1].weight.zero_()
        encoder.blocks["conv4"][1].bias.fill_(1.0)
    found = OnlineMonitor(Monitor(), *loaders, RECIPES)(encoder, 1, False)
    assert found["alignment"] == pytest.approx(0, abs=1e-6) and found["uniformity"] == pytest.approx(0, abs=1e-5)
    assert found["neg_q05"] == pytest.approx(1, abs=1e-5)
