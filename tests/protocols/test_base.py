"""The bank and honest selection."""

import numpy as np
import pytest

from miyagi.errors import UserError
from miyagi.protocols.base import Bank, DoesNotApply, Fitted, best_on_val, classify


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    found = {}
    for split, n in (("train", 6), ("val", 4), ("test", 5)):
        found |= {f"{split}.{layer}": rng.normal(size=(n, 3)) for layer in ("encoder", "head", "conv1")}
        found[f"{split}.labels"] = np.arange(n) % 2
    return found


def test_what_is_in_a_bank(write_bank, arrays):
    bank = Bank(write_bank(arrays))
    assert bank.layers == ["conv1", "encoder", "head"]
    assert bank.stamp == {
        "dataset": "digits", "data": "0123456789abcdef", "threads": 1, "pretrained_on": "fashion_mnist", "seen": [],
    }  # fmt: skip
    assert (bank.transforms, bank.others, bank.width("head")) == ({}, {}, 3)
    for split in ("train", "val", "test"):
        x, y = bank.split(split, "head")
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert np.array_equal(x, arrays[f"{split}.head"].astype(np.float32))
        assert np.array_equal(y, arrays[f"{split}.labels"])


def test_an_unknown_layer_names_the_nearest(write_bank, arrays):
    bank = Bank(write_bank(arrays))
    with pytest.raises(UserError, match=r"bank\.safetensors has no layer 'encodr'; did you mean 'encoder'\?"):
        bank.split("train", "encodr")


@pytest.mark.parametrize("damage", ["missing", pytest.param("cut"), pytest.param("foreign")])
def test_a_broken_bank_is_named(write_bank, arrays, damage):
    file = write_bank(arrays)
    whole = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(whole[:-50] if damage == "cut" else b"not features" * 100)
    with pytest.raises(UserError, match=r"cannot read the features .*bank\.safetensors.*run `dvc repro`"):
        Bank(file)


class Watched(Bank):
    """A bank that notes what is read."""

    def split(self, split, layer):
        self.read.append((split, layer))
        return super().split(split, layer)


def test_the_test_split_is_read_once_and_last(write_bank, arrays):
    bank = Watched(write_bank(arrays))
    bank.read = []

    def fit(train, val):
        bank.read.append("fitted")
        assert (len(train.x), len(val.x)) == (6, 4)
        return Fitted(lambda x: np.ones(len(x), np.int64), {"k": 1}, "k fixed")

    outcomes = classify(bank, ["encoder", "head"], fit)
    for layer, start in (("encoder", 0), ("head", 5)):
        read = bank.read[start : start + 5]
        assert read.index("fitted") < read.index(("test", layer))
        assert read.count(("test", layer)) == 1
    assert [(o.layer, o.split) for o in outcomes] == [
        ("encoder", "val"), ("encoder", "test"), ("head", "val"), ("head", "test"),
    ]  # fmt: skip
    assert outcomes[1].scores.tolist() == [0.0, 100.0, 0.0, 100.0, 0.0]
    assert outcomes[1].predicted.tolist() == [1] * 5
    assert {(o.metric, o.selection, str(o.chosen)) for o in outcomes} == {("top1", "k fixed", "{'k': 1}")}


def test_best_on_val():
    accuracy = {1: 0.3, 5: 0.8, 9: 0.8, 20: 0.1}
    assert best_on_val(list(accuracy), accuracy.__getitem__) == (5, "best of 4 on val")  # the first of equals
    assert best_on_val([20], accuracy.__getitem__) == (20, "fixed")
    assert best_on_val([1, 20], accuracy.__getitem__, "3 folds of train") == (1, "best of 2 on 3 folds of train")


def test_transformed_copies_are_splits_of_their_own(write_bank, arrays):
    copies = {f"train~{copy}.encoder": arrays["train.encoder"][:2] + i
              for i, copy in enumerate(("rotation2", "rotation1", "gray1"), 1)}  # fmt: skip
    bank = Bank(write_bank(arrays | copies))
    assert bank.layers == ["conv1", "encoder", "head"]
    assert bank.transforms == {"gray": ["gray1"], "rotation": ["rotation1", "rotation2"]}


@pytest.mark.parametrize("split", ["val", "test"])
def test_classes_that_were_not_trained_on_cannot_be_predicted(write_bank, arrays, split):
    arrays[f"{split}.labels"] = arrays[f"{split}.labels"] + 2
    with pytest.raises(DoesNotApply, match=f"none of its {split} classes is among its training classes"):
        classify(Bank(write_bank(arrays)), ["encoder"], None)
    arrays[f"{split}.labels"][0] = 1  # one that was is enough
    bank = Bank(write_bank(arrays))
    assert classify(bank, ["encoder"], lambda train, val: Fitted(lambda x: np.ones(len(x), np.int64), {}, "fixed"))


def test_several_labels_an_image(write_bank, arrays):
    for split, n in (("train", 6), ("val", 4), ("test", 5)):
        arrays[f"{split}.labels"] = np.eye(3, dtype=np.uint8)[np.arange(n) % 3]
    bank = Bank(write_bank(arrays))
    x, y = bank.split("val", "encoder")
    assert (x.shape, y.shape, y.dtype) == ((4, 3), (4, 3), np.uint8)
    with pytest.raises(DoesNotApply, match="several labels"):
        classify(bank, ["encoder"], None)
