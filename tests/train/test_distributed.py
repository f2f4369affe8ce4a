"""The loop in three real processes: exact resume, one writer, accumulated gradients; and how they meet.

Three, because sums of two numbers hide what order does to sums.
"""

import math

import pytest
import torch

from miyagi.data.loader import Loader
from miyagi.errors import UserError
from miyagi.methods.base import build
from miyagi.nn.encoders import base as encoders
from miyagi.recipes import RECIPES
from miyagi.settings import Pretrain
from miyagi.train import checkpoint, distributed
from miyagi.train.distributed import World
from miyagi.train.loop import Trainer
from tests.methods.test_ddp import group_norm, near
from tests.processes import together

WORLD, EACH = 3, 16


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Stop(Exception):
    """The test's kill, in every process at once."""


def trainer(beton, info, world, name="simclr", precision="fp32", norm="batch", compile=False, **settings):
    torch.manual_seed(0)
    encoder = encoders.build({"name": "conv4", "width": 8}, info.mean, info.std)
    method = build(name, {}, encoder, info)
    if norm == "group":
        group_norm(method)
    pretrain = Pretrain(**{"epochs": 2, "batch_size": EACH * WORLD, "warmup_epochs": 0.0, **settings})
    part = pretrain.part(world.size)
    # Two steps an epoch: DDP orders its buckets anew after the first.
    loader = Loader(beton, part, seed=3, drop_last=True, limit=2 * EACH * WORLD, rank=world.rank, world=world.size)
    recipes = RECIPES["simclr_small"].views
    return Trainer(
        method, loader, recipes, pretrain, size=info.size, seed=0, precision=precision, compile=compile, world=world
    )


def work(number, beton, info, folder):
    torch.use_deterministic_algorithms(True)
    world = World(number, WORLD, torch.distributed.new_group(backend="gloo"))
    found, told = {}, []
    whole = trainer(beton, info, world)
    found["history"] = whole.fit(folder / "whole", on_epoch=lambda row, rate: told.append((row["epoch"], rate > 0)))
    found["told"], found["whole"] = told, whole.state()

    def stop(epoch, batches):
        if epoch == 1:
            raise Stop

    cut = trainer(beton, info, world)
    cut.method.before_epoch = stop
    with pytest.raises(Stop):
        cut.fit(folder / "cut")
    resumed = trainer(beton, info, world)
    resumed.fit(folder / "cut")
    found["resumed"] = resumed.state()
    parts = trainer(beton, info, world, "supervised", norm="group", accumulate=2, epochs=1, optimizer="sgd", lr=0.1)
    found["accumulated"] = (parts.fit(folder / "parts"), parts.method.state_dict())
    half = trainer(beton, info, world, "supervised", "fp16", epochs=1, optimizer="lars", lr=0.1)
    found["fp16"] = (half.fit(folder / "half"), half.state())
    found["answers"] = [world.told(value) for value in (number == 0, number != 0)]
    found["total"] = world.total(torch.tensor([1.0, number])).tolist()
    return found


@pytest.fixture(scope="module")
def facts(project):
    from miyagi.data.manifest import data_info, read_manifest

    return project.beton("digits", "train"), data_info(read_manifest(project.manifest("digits")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def three(facts, folder, tmp_path_factory):
    return together(tmp_path_factory.mktemp("three"), WORLD, work, *facts, folder)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b or (isinstance(a, list) and len(a) == len(b) and all(map(same, a, b)))


def test_resumed_is_bit_identical(three):
    for found in three:
        assert same(found["resumed"], found["whole"])


def test_all_hold_the_same_and_one_writes(three, folder):
    first, *others = three
    assert len(first["history"]) == 2
    for other in others:
        assert same(other["whole"]["method"], first["whole"]["method"])
        assert same(other["whole"]["optimizer"], first["whole"]["optimizer"])
        assert other["history"] == first["history"]
        assert other["told"] == []
    assert first["told"] == [(1, True), (2, True)]
    assert same(checkpoint.load(folder / "whole"), first["whole"])


def test_three_processes_learn_as_one(three, facts, tmp_path):
    alone = trainer(*facts, World())
    for got, want in zip(three[0]["history"], alone.fit(tmp_path), strict=True):
        assert (got["epoch"], got["lr"]) == (want["epoch"], want["lr"])
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-3)


def test_accumulated_in_three_processes_is_the_whole_batch_in_one(three, facts, tmp_path):
    alone = trainer(*facts, World(), "supervised", norm="group", epochs=1, optimizer="sgd", lr=0.1)
    (want,) = alone.fit(tmp_path)
    for (got,), state in (found["accumulated"] for found in three):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-4)
        for key, value in alone.method.state_dict().items():
            near(state[key], value, key)


def test_fp16_with_a_scaler(three):
    for (row,), state in (found["fp16"] for found in three):
        assert math.isfinite(row["loss"])
        assert state["scaler"]["scale"] > 0
        assert same(state["method"], three[0]["fp16"][1]["method"])
        assert same(state["scaler"], three[0]["fp16"][1]["scaler"])


def test_what_they_say_to_one_another(three):
    for found in three:
        assert found["answers"] == [True, False]
        assert found["total"] == [3.0, 3.0]


def test_alone():
    with distributed.joined(1, gpu=False) as world:
        assert (world.rank, world.size) == (0, 1)
        assert world.told(True) and not world.told(False)
        model = torch.nn.Linear(2, 2)
        assert world.parallel(model, torch.device("cpu")) is model
        values = torch.ones(2)
        assert world.total(values) is values
        world.wait()


def test_as_many_as_were_asked_for(monkeypatch):
    with pytest.raises(UserError, match=r"runtime\.processes: 2, but 1 were started"), distributed.joined(2, gpu=False):
        pytest.fail("one is not two")
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"runtime\.processes: 2, but 3 were started"), distributed.joined(2, gpu=False):
        pytest.fail("three are not two")


@pytest.mark.skipif(torch.cuda.device_count() >= 2, reason="needs a machine with less than two GPUs")
def test_a_gpu_each(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match=r"runtime\.processes: 2, but there are [01] GPUs"),
        distributed.joined(2, gpu=True),
    ):
        pytest.fail("there are not two")
