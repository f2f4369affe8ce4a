"""What an MLP can tell from features: everything, or nothing."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from miyagi.errors import UserError
from miyagi.protocols.base import Bank, DoesNotApply
from miyagi.protocols.invariance import Settings, evaluate


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # the stage sets runtime.threads; a second one only waits for products this small
        yield


@pytest.fixture
def arrays(pixels):
    """`encoder` sees which of its 8 x 8 pixels are where, `head` only how many are bright: blind to rotation."""
    found = {}
    for split in ("train", "val", "test"):
        x = pixels[f"{split}.encoder"].reshape(-1, 8, 8)
        found[f"{split}.labels"] = pixels[f"{split}.labels"]
        for turns in range(4):
            key = f"{split}~rotation{turns}" if turns else split
            n = 150 if turns else len(x)
            turned = np.rot90(x, turns, (1, 2))[:n]
            found[f"{key}.encoder"] = turned.reshape(n, 64)
            found[f"{key}.head"] = np.sort(turned.reshape(n, 64), axis=1)
        found[f"{split}~noise1.encoder"] = found[f"{split}.encoder"][:150] + 3
        found[f"{split}~noise1.head"] = found[f"{split}.head"][:150]
    return found


def test_what_the_head_has_thrown_away(write_bank, arrays):
    outcomes = evaluate(Bank(write_bank(arrays)), Settings(epochs=20), 0)
    assert [(o.condition["transform"], o.layer, o.split) for o in outcomes] == [
        (t, layer, split) for t in ("noise", "rotation") for layer in ("encoder", "head") for split in ("val", "test")
    ]  # fmt: skip
    value = {(o.condition["transform"], o.layer): o.scores.mean() for o in outcomes if o.split == "test"}
    assert value["rotation", "encoder"] > 70 and value["noise", "encoder"] == 100
    assert abs(value["rotation", "head"] - 25) < 6 and abs(value["noise", "head"] - 50) < 6
    assert {o.condition["transform"]: o.condition["chance"] for o in outcomes} == {"noise": 50, "rotation": 25}
    for outcome in outcomes:
        assert len(outcome.scores) == 150  # an image, not a copy, is the unit
        assert set(outcome.scores) <= (
            {0, 25, 50, 75, 100} if outcome.condition["transform"] == "rotation" else {0, 50, 100}
        )


def test_the_seed_counts_and_a_rerun_does_not(write_bank, arrays):
    bank = Bank(write_bank(arrays))
    runs = [[o.scores.tolist() for o in evaluate(bank, Settings(epochs=3), seed)] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_odd_input(write_bank, arrays, pixels):
    with pytest.raises(DoesNotApply, match="list some under embed.transforms"):
        evaluate(Bank(write_bank(pixels)), Settings(), 0)
    with pytest.raises(UserError, match="no layer 'head'"):
        evaluate(Bank(write_bank({k: v for k, v in arrays.items() if "head" not in k})), Settings(epochs=1), 0)
