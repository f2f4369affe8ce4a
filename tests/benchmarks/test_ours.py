"""Our side is what the product trains with, and looking at it leaves no trace."""

import copy

import pytest
import torch

from benchmarks import ours
from miyagi.settings import Pretrain

ENTRY = {
    "method": "simclr", "recipe": "simclr_small", "temperature": 0.3, "augment": {"gray": 0.0},
    "pretrain": {"epochs": 2, "batch_size": 64, "optimizer": "sgd"},
}  # fmt: skip


@pytest.fixture
def trained(built):
    return ours.trainer(str(built[0]), ENTRY, width=8, threads=1, seed=0)


def test_the_entry_decides(built, trained):
    assert trained.recipes[0].gray == 0
    assert trained.recipes[0].jitter is not None
    assert trained.settings == Pretrain(epochs=2, batch_size=64, optimizer="sgd")
    assert trained.loader.images == 192  # 200, less what does not fill a batch
    assert torch.get_num_threads() == 1
    other = ours.trainer(str(built[0]), ENTRY | {"temperature": 0.6}, width=8, threads=1, seed=0)
    batch = next(trained.batches(0))
    assert trained.method(batch, 0.0)["loss"] != other.method(batch, 0.0)["loss"]


def test_compute_only_is_the_same_training_on_noise(built, trained):
    noise = ours.trainer(str(built[0]), ENTRY, width=8, threads=1, seed=0, kind=ours.OnNoise)
    real, made = list(trained.batches(0)), list(noise.batches(0))
    assert len(made) == len(real) == len(trained.loader)
    for a, b in zip(real, made, strict=True):
        assert [view.shape for view in a.views] == [view.shape for view in b.views]
        assert [view.stride() for view in a.views] == [view.stride() for view in b.views]
        assert a.views[0].dtype == b.views[0].dtype
        assert len(a) == len(b)
    assert abs(float(made[0].views[0].std()) - 12**-0.5) < 0.01  # uniform in [0, 1)


def test_noise_is_trained_on_to_the_end(built, tmp_path):
    noise = ours.trainer(str(built[0]), ENTRY, width=8, threads=1, seed=0, kind=ours.OnNoise)
    assert [row["epoch"] for row in noise.fit(tmp_path)] == [1, 2]


def test_data_and_noise_take_turns(built):
    both = ours.trainer(str(built[0]), ENTRY, width=8, threads=1, seed=0, kind=ours.InTurn)
    noise = ours.trainer(str(built[0]), ENTRY, width=8, threads=1, seed=0, kind=ours.OnNoise)
    real = ours.trainer(str(built[0]), ENTRY, width=8, threads=1, seed=0)
    for epoch, sort in enumerate([noise, real, real, noise, noise, real]):
        assert both.on_noise(epoch) == (sort is noise)
        for made, expected in zip(both.batches(epoch), sort.batches(epoch), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(made.views, expected.views, strict=True))


@pytest.mark.parametrize("look", ["first_pass", "compiling", "accuracy"])
def test_looking_leaves_no_trace(built, trained, look):
    before = copy.deepcopy(trained.state())
    found = ours.accuracy(trained, str(built[0]), 5, 0.1) if look == "accuracy" else getattr(ours, look)(trained)
    assert found >= 0
    after = trained.state()
    assert after["epoch"] == before["epoch"] == 0
    for name, value in before["method"].items():
        assert torch.equal(value, after["method"][name]), name
    assert all(parameter.grad is None for parameter in trained.method.parameters())


def test_accuracy_is_of_the_test_images(built, trained):
    """1 of 50 more or fewer: in steps of 2 %."""
    found = ours.accuracy(trained, str(built[0]), 5, 0.1)
    assert found == pytest.approx(2 * round(found / 2))
    assert 20 < found <= 100  # pixels of digits tell much without training
