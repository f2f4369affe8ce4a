"""The layer-wise probe on real digits."""

import numpy as np
import pytest

from miyagi.errors import UserError
from miyagi.protocols import linear
from miyagi.protocols.base import Bank
from miyagi.protocols.layers import Settings, evaluate


def test_each_layer_is_the_linear_probe_and_the_best_is_chosen_on_val(write_bank, pixels):
    bank = Bank(write_bank(pixels))
    outcomes = evaluate(bank, Settings(c=[0.01, 0.1]), 0)
    assert [(o.layer, o.split) for o in outcomes] == [
        (layer, split) for layer in ("conv1", "encoder", "best") for split in ("val", "test")
    ]
    direct = linear.evaluate(bank, linear.Settings(c=[0.01, 0.1], layers=["conv1", "encoder"]), 0)
    for mine, its in zip(outcomes, direct, strict=False):
        assert (mine.chosen, mine.selection) == (its.chosen, its.selection)
        assert np.array_equal(mine.predicted, its.predicted)
    val = {o.layer: o.scores.mean() for o in outcomes if o.split == "val"}
    assert val["conv1"] < val["encoder"] == val["best"]
    for split, best in (("val", outcomes[4]), ("test", outcomes[5])):
        assert best.chosen["layer"] == "encoder" and best.dimensions == 64
        assert best.selection == "layer best of 2 on val, c best of 2 on val"
        (own,) = [o for o in outcomes if (o.layer, o.split) == ("encoder", split)]
        assert np.array_equal(best.predicted, own.predicted)


def test_val_decides_where_test_says_otherwise(write_bank, pixels):
    """A layer that is the best on test, and not on val, is not named."""
    leak = pixels | {"test.conv1": np.c_[100 * np.eye(10)[pixels["test.labels"]], np.zeros((300, 22))]}
    leak |= {
        f"{s}.conv1": np.c_[np.eye(10)[pixels[f"{s}.labels"]], np.zeros((len(pixels[f"{s}.labels"]), 22))]
        for s in ("train",)
    }
    outcomes = {(o.layer, o.split): o for o in evaluate(Bank(write_bank(leak)), Settings(c=[0.1]), 0)}
    assert outcomes["conv1", "test"].scores.mean() == 100 > outcomes["encoder", "test"].scores.mean()
    assert outcomes["best", "test"].chosen["layer"] == "encoder"


def test_a_layer_that_is_not_there(write_bank, pixels):
    with pytest.raises(UserError, match="no layer 'conv9'; did you mean 'conv1'"):
        evaluate(Bank(write_bank(pixels)), Settings(layers=["encoder", "conv9"]), 0)
