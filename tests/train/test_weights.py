"""Weights: equal bytes, no pickle, and an error that names the file."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from miyagi.errors import UserError
from miyagi.nn.encoders.base import build
from miyagi.train.weights import about, load_module, save_module

CONV4 = {"name": "conv4", "width": 8, "grid": 2}
ABOUT = {"experiment": {"method": "simclr", "settings": {"temperature": 0.1}}, "classes": 10, "name": "ň 猫"}


def encoder(seed=0, **changes):
    torch.manual_seed(seed)
    return build({**CONV4, **changes}, (0.5,) * 3, (0.25,) * 3)


def test_round_trip(tmp_path):
    saved, loaded = encoder(0), encoder(1)
    saved(torch.rand(8, 3, 32, 32))  # BatchNorm's running statistics and its count are state as well
    save_module(saved, tmp_path / "e.safetensors", ABOUT)
    load_module(loaded, tmp_path / "e.safetensors")
    assert saved.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())
    assert about(tmp_path / "e.safetensors") == ABOUT


def test_a_module_without_weights(tmp_path):
    save_module(nn.Sequential(), tmp_path / "h.safetensors", ABOUT)
    load_module(nn.Sequential(), tmp_path / "h.safetensors")
    assert about(tmp_path / "h.safetensors") == ABOUT
    with pytest.raises(UserError, match=r"h\.safetensors"):
        load_module(nn.Linear(2, 2), tmp_path / "h.safetensors")


def test_equal_weights_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_module(encoder(), tmp_path / name, ABOUT)
    save_module(encoder(1), tmp_path / "c", ABOUT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


WRITE = """
import hashlib, sys, torch
from pathlib import Path
from miyagi.nn.encoders.base import build
from miyagi.train.weights import save_module
torch.manual_seed(0)
encoder = build({"name": "conv4", "width": 8, "grid": 2}, (0.5,) * 3, (0.25,) * 3)
save_module(encoder, Path(sys.argv[1]), {"experiment": {"method": "simclr"}, "classes": 10, "size": 32})
"""


def test_equal_bytes_whatever_the_hash_seed(tmp_path):
    digests = set()
    for seed in ("1", "2"):
        file = tmp_path / seed
        env = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", WRITE, str(file)], env=env, check=True, timeout=60)
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign"])
def test_a_damaged_file_is_named(tmp_path, damage):
    file = tmp_path / "encoder.safetensors"
    if damage != "missing":
        save_module(encoder(), file, ABOUT)
        whole = file.read_bytes()
        file.write_bytes({"empty": b"", "cut": whole[:-100], "foreign": b"not weights" * 100}[damage])
    with pytest.raises(UserError, match=r"cannot load .*encoder\.safetensors: .*run `dvc repro`") as caught:
        load_module(encoder(), file)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("damage", ["missing", "cut", "without"])
def test_a_damaged_file_is_named_when_it_is_asked_what_it_is(tmp_path, damage):
    file = tmp_path / "encoder.safetensors"
    if damage == "cut":
        save_module(encoder(), file, ABOUT)
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "without":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, str(file))
    with pytest.raises(UserError, match=r"encoder\.safetensors"):
        about(file)


@pytest.mark.parametrize("other", [{"width": 4}, {"name": "resnet18"}])
def test_another_architecture_is_refused(tmp_path, other):
    file = tmp_path / "encoder.safetensors"
    save_module(encoder(), file, ABOUT)
    settings = {**CONV4, **other} if "name" not in other else other
    torch.manual_seed(0)
    with pytest.raises(UserError, match=r"cannot load .*encoder\.safetensors"):
        load_module(build(settings, (0.5,) * 3, (0.25,) * 3), file)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_under_another_name_is_refused_and_not_run(tmp_path):
    file, mark = tmp_path / "encoder.safetensors", tmp_path / "mark"
    torch.save({"x": Evil(mark)}, file)
    with pytest.raises(UserError, match=r"encoder\.safetensors"):
        load_module(encoder(), file)
    assert not mark.exists()
    torch.load(file.rename(tmp_path / "encoder.pt"), weights_only=False)  # it would have run
    assert mark.exists()
