"""The kNN protocol on real digits, against scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from miyagi.errors import UserError
from miyagi.protocols.base import Bank, DoesNotApply
from miyagi.protocols.knn import Settings, evaluate


def reference(arrays, split, k, temperature=0.1, layer="encoder"):
    model = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    )
    model.fit(arrays[f"train.{layer}"].astype(np.float64), arrays["train.labels"])
    return model.predict(arrays[f"{split}.{layer}"].astype(np.float64))


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.1), (200, 0.02), (600, 0.1)])
def test_equals_sklearn(write_bank, pixels, k, temperature):
    outcomes = evaluate(
        Bank(write_bank(pixels)), Settings(k=k, temperature=temperature, layers=["encoder", "conv1"]), 0
    )
    assert [(o.layer, o.split) for o in outcomes] == [
        ("encoder", "val"), ("encoder", "test"), ("conv1", "val"), ("conv1", "test"),
    ]  # fmt: skip
    for outcome in outcomes:
        expected = reference(pixels, outcome.split, k, temperature, outcome.layer)
        assert np.array_equal(outcome.predicted, expected)
        assert np.array_equal(outcome.scores, 100.0 * (expected == pixels[f"{outcome.split}.labels"]))
        assert (outcome.selection, outcome.chosen) == ("k fixed", {"k": k})
    assert outcomes[1].scores.mean() > (90 if k <= 20 else 60)


def test_a_list_is_chosen_from_on_val(write_bank, pixels):
    candidates = [600, 200, 5, 1]
    accuracy = [(reference(pixels, "val", k) == pixels["val.labels"]).mean() for k in candidates]
    best = candidates[int(np.argmax(accuracy))]
    assert accuracy[0] < max(accuracy)  # there is something to choose
    for outcome in evaluate(Bank(write_bank(pixels)), Settings(k=candidates), 0):
        assert (outcome.selection, outcome.chosen) == ("k best of 4 on val", {"k": best})
        assert np.array_equal(outcome.predicted, reference(pixels, outcome.split, best))


def test_val_decides_and_test_cannot(write_bank, pixels):
    """Where val is turned round, another k is chosen; where the test split gives its labels away, none is."""
    settings = Settings(k=[1, 600])

    def chosen(arrays, name):
        val, _ = evaluate(Bank(write_bank(arrays, name)), settings, 0)
        return val.chosen, val.scores.tolist()

    honest = chosen(pixels, "honest")
    rng = np.random.default_rng(0)
    # Test images that are train images with the label of the vote of all: k = 600 is right on each, k = 1 seldom.
    crowd = reference({**pixels, "test.encoder": pixels["train.encoder"][:300]}, "test", 600)
    leaks = {
        "crowd": {"test.encoder": pixels["train.encoder"][:300], "test.labels": crowd},
        "noise": {"test.encoder": rng.normal(size=(300, 64)), "test.labels": rng.permutation(pixels["test.labels"])},
    }
    for name, leak in leaks.items():
        assert chosen(pixels | leak, name) == honest
    val = {"val.encoder": leaks["crowd"]["test.encoder"], "val.labels": crowd}
    assert honest[0] == {"k": 1} and chosen(pixels | val, "val")[0] == {"k": 600}


def test_more_neighbours_than_images(write_bank, pixels):
    with pytest.raises(DoesNotApply, match=r"evaluate\.knn\.k: 601 neighbours, but the bank holds 600"):
        evaluate(Bank(write_bank(pixels)), Settings(k=[1, 601]), 0)


def test_an_unknown_layer(write_bank, pixels):
    with pytest.raises(UserError, match="no layer 'conv11'; did you mean 'conv1'"):
        evaluate(Bank(write_bank(pixels)), Settings(k=1, layers=["conv11"]), 0)


def test_two_classes(write_bank, pixels):
    two = {name: value.copy() for name, value in pixels.items()}
    for split in ("train", "val", "test"):
        two[f"{split}.labels"] = two[f"{split}.labels"] % 2
    for outcome in evaluate(Bank(write_bank(two)), Settings(k=9), 0):
        assert np.array_equal(outcome.predicted, reference(two, outcome.split, 9))
        assert outcome.scores.mean() > 90
