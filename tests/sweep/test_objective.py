import numpy as np
import pytest
import torch

from miyagi import params
from miyagi.data.loader import Loader
from miyagi.data.manifest import data_info, read_manifest
from miyagi.methods.simclr import SimCLR
from miyagi.nn.ema import frozen_copy
from miyagi.settings import Objective
from miyagi.sweep.objective import hits, progress, subset, train
from miyagi.train.build import build_method
from miyagi.train.features import features


@pytest.fixture(autouse=True)
def _restore():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def simclr(project):
    changes = {"pretrain": {"epochs": 1, "monitor": {"every": 1, "images": 64}}}
    return params.read(project.params).experiment("simclr", changes)


def test_subset():
    rows = subset(100, 10)
    assert len(rows) == len(set(rows)) == 10 and (np.diff(rows) > 0).all() and rows.max() < 100
    assert (subset(100, 10) == rows).all()
    assert set(rows) < set(subset(100, 20))  # a larger limit only adds images
    assert subset(100, None) is None and subset(100, 100) is None


def test_progress():
    row = {"knn": 60.0, "rank": 12.0, "alignment": 0.3, "uniformity": -2.0}
    found = {
        metric: progress(row, Objective(metric=metric))
        for metric in ("knn", "linear", "rankme", "alignment_uniformity")
    }
    assert found == {"knn": 60.0, "linear": 60.0, "rankme": 12.0, "alignment_uniformity": 1.7}


@pytest.mark.parametrize("metric", ["knn", "linear", "rankme", "alignment_uniformity"])
def test_a_seed_gives_the_same_value_again(project, simclr, metric, tmp_path):
    objective = Objective(metric=metric, train_limit=128, k=5)
    rows = []
    first, again, _ = (train(simclr, seed, objective, project, tmp_path, rows.append) for seed in (0, 0, 1))
    assert first.value == again.value
    assert rows[0] == rows[1] and rows[0]["loss"] != rows[2]["loss"]
    assert [row["epoch"] for row in rows] == [1, 1, 1]
    assert list(tmp_path.iterdir()) == []
    if metric in ("knn", "linear"):
        assert first.images.shape == (64,) and set(first.images) <= {0.0, 100.0}
        assert first.value == first.images.mean() > 20  # of ten classes
    else:
        assert first.images is None


def test_hits_against_scikit_learn(project, simclr):
    """The nearest neighbour of each validation image among the 128 images that are trained on."""
    from sklearn.neighbors import KNeighborsClassifier

    info, rows = data_info(read_manifest(project.manifest("digits"))), subset(256, 128)
    encoder = build_method(simclr, 0, info, torch.device("cpu")).encoder
    found = hits(encoder, simclr, Objective(k=1), project, info, rows)
    (x, y), (queries, labels) = (
        features(encoder, Loader(project.beton("digits", split), 64, subset=own)())
        for split, own in (("train", rows), ("val", None))
    )
    reference = KNeighborsClassifier(1, metric="cosine").fit(x, y)
    assert (found == 100 * (reference.predict(queries) == labels)).all()


def test_a_trial_is_judged_by_what_downstream_gets(project, simclr, tmp_path, monkeypatch):
    """Of two values of a rate, a method that gives the untrained encoder has one and the same accuracy."""
    monkeypatch.setattr(SimCLR, "downstream", lambda self: (self.start, self.head), raising=True)
    setup = SimCLR.setup

    def set_up(self, settings, info):
        setup(self, settings, info)
        self.start = frozen_copy(self.encoder)

    monkeypatch.setattr(SimCLR, "setup", set_up)
    objective = Objective(metric="knn", train_limit=128, k=5)
    small = simclr.model_copy(update={"pretrain": simclr.pretrain.model_copy(update={"lr": 1e-6})})
    found = [train(one, 0, objective, project, tmp_path, lambda row: None) for one in (simclr, small)]
    assert np.array_equal(found[0].images, found[1].images)
    monkeypatch.undo()
    assert not np.array_equal(train(simclr, 0, objective, project, tmp_path, lambda row: None).images, found[0].images)


def test_an_epoch_can_end_the_training(project, simclr, tmp_path):
    class Enough(Exception):
        pass

    def stop(row):
        raise Enough

    with pytest.raises(Enough):
        train(simclr, 0, Objective(train_limit=64), project, tmp_path, stop)
    assert list(tmp_path.iterdir()) == []
