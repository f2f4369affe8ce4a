"""The linear protocol on real digits, against scikit-learn on standardised features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from miyagi.errors import UserError
from miyagi.protocols.base import Bank
from miyagi.protocols.linear import Settings, evaluate
from miyagi.protocols.linear_fits import Scaler, _descend

EXACT = {"tolerance": 1e-6, "max_iterations": 5000}


def reference(arrays, split, c, layer="encoder"):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-6, max_iter=5000))
    model.fit(arrays[f"train.{layer}"].astype(np.float64), arrays["train.labels"])
    return model.predict(arrays[f"{split}.{layer}"].astype(np.float64))


@pytest.mark.parametrize("c", [0.001, 0.1])
def test_equals_sklearn(write_bank, pixels, c):
    outcomes = evaluate(Bank(write_bank(pixels)), Settings(c=[c], layers=["encoder", "conv1"], **EXACT), 0)
    assert len(outcomes) == 4
    for outcome in outcomes:
        expected = reference(pixels, outcome.split, c, outcome.layer)
        assert np.array_equal(outcome.predicted, expected)
        assert np.array_equal(outcome.scores, 100.0 * (expected == pixels[f"{outcome.split}.labels"]))
        assert (outcome.selection, outcome.chosen["c"]) == ("c fixed", c)
        assert 1 <= outcome.chosen["iterations"] < 5000


def test_c_is_chosen_on_val_and_each_start_forgets_the_last(write_bank, pixels):
    candidates = [1.0, 0.00001, 0.01]
    accuracy = {c: (reference(pixels, "val", c) == pixels["val.labels"]).mean() for c in sorted(candidates)}
    best = max(accuracy, key=accuracy.get)
    assert min(accuracy.values()) < max(accuracy.values())
    for outcome in evaluate(Bank(write_bank(pixels)), Settings(c=candidates, **EXACT), 0):
        assert (outcome.selection, outcome.chosen["c"]) == ("c best of 3 on val", best)
        assert np.array_equal(outcome.predicted, reference(pixels, outcome.split, best))


def test_the_test_split_cannot_influence_any_choice(write_bank, pixels):
    settings = Settings(c=[0.00001, 0.01, 1.0])

    def chosen(arrays, name):
        val, test = evaluate(Bank(write_bank(arrays, name)), settings, 0)
        assert val.chosen == test.chosen
        return val.chosen, val.predicted.tolist(), val.scores.tolist()

    honest = chosen(pixels, "honest")
    strong = reference(pixels, "test", 0.00001)  # labels on which the worst C is always right
    rng = np.random.default_rng(0)
    leaks = {
        "labels": {"test.labels": strong},
        "noise": {"test.encoder": 1e3 * rng.normal(size=(300, 64)), "test.labels": rng.integers(0, 10, 300)},
    }
    for name, leak in leaks.items():
        assert chosen(pixels | leak, name) == honest
    val = {"val.encoder": pixels["test.encoder"], "val.labels": strong}
    assert chosen(pixels | val, "val")[0]["c"] == 0.00001 != honest[0]["c"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_standardised_by_train_alone(write_bank, pixels, split):
    """What is predicted for an image does not depend on the images beside it."""
    other = {name: value.copy() for name, value in pixels.items()}
    other[f"{split}.encoder"][50:] = 1000 * other[f"{split}.encoder"][50:] + 7
    found = [
        {o.split: o.predicted for o in evaluate(Bank(write_bank(arrays, str(i))), Settings(c=[0.01]), 0)}
        for i, arrays in enumerate((pixels, other))
    ]
    assert np.array_equal(found[0][split][:50], found[1][split][:50])
    assert not np.array_equal(found[0][split], found[1][split])
    rest = {"val": "test", "test": "val"}[split]
    assert np.array_equal(found[0][rest], found[1][rest])


def test_scale_and_constants_do_not_matter(write_bank, pixels):
    """Standardised: a feature in other units is the same feature, one that never varies is none."""
    scaled = {name: value.copy() for name, value in pixels.items()}
    for split in ("train", "val", "test"):
        scaled[f"{split}.encoder"] = np.c_[
            scaled[f"{split}.encoder"] * 64, np.full(len(scaled[f"{split}.labels"]), 5.0)
        ]
    for a, b in zip(
        *(evaluate(Bank(write_bank(x, n)), Settings(c=[0.01], **EXACT), 0) for x, n in ((pixels, "a"), (scaled, "b"))),
        strict=True,
    ):
        assert np.array_equal(a.predicted, b.predicted)


@pytest.mark.parametrize("labels", [(0, 1), (3, 7)])
def test_two_classes(write_bank, pixels, labels):
    two = {name: value.copy() for name, value in pixels.items()}
    for split in ("train", "val", "test"):
        two[f"{split}.labels"] = np.where(two[f"{split}.labels"] % 2, *labels)
    for outcome in evaluate(Bank(write_bank(two)), Settings(c=[0.01, 0.1], **EXACT), 0):
        assert np.array_equal(outcome.predicted, reference(two, outcome.split, outcome.chosen["c"]))
        assert outcome.scores.mean() > 85


def test_an_unknown_layer(write_bank, pixels):
    with pytest.raises(UserError, match="no layer 'encoders'; did you mean 'encoder'"):
        evaluate(Bank(write_bank(pixels)), Settings(layers=["encoders"]), 0)


def test_sgd_equals_torch(pixels):
    """The same batches, the same schedule: torch's optimiser ends where ours does, for each candidate."""
    x = torch.from_numpy(Scaler(pixels["train.encoder"])(pixels["train.encoder"]).astype(np.float32))
    y = torch.from_numpy(pixels["train.labels"])
    candidates, epochs, batch = [(0.1, 0.0), (1.0, 0.001)], 3, 128
    found = _descend(x.numpy(), y.numpy(), candidates, epochs, batch, 0.9, seed=5)
    for solution, (lr, decay) in zip(found, candidates, strict=True):
        layer = torch.nn.Linear(x.shape[1], 10)
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 5)
        for epoch in range(epochs):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((5, epoch))))
            for rows in torch.from_numpy(rng.permutation(len(x))).split(batch):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
                optimizer.step()
                schedule.step()
        assert np.allclose(solution.weight, layer.weight.detach(), atol=2e-4, rtol=1e-3)
        assert np.allclose(solution.bias, layer.bias.detach(), atol=2e-4, rtol=1e-3)


def test_sgd_that_diverges_does_not_win_by_calling_everything_the_first_class(write_bank, pixels):
    bank = Bank(write_bank(pixels | {"val.labels": np.zeros(200)}))
    settings = Settings(solvers=["sgd"], sgd={"lr": [3e38, 0.1], "epochs": 2})
    assert {o.chosen["lr"] for o in evaluate(bank, settings, 0)} == {0.1}
    alone = Settings(solvers=["sgd"], sgd={"lr": [3e38], "epochs": 2})
    with pytest.raises(UserError, match=r"^evaluate\.linear\.sgd\.lr: training diverged at every rate of \[3e\+38\]"):
        evaluate(bank, alone, 0)


def test_sgd_is_chosen_on_val_and_stands_in_rows_of_its_own(write_bank, pixels):
    both = Settings(c=[0.01], solvers=["lbfgs", "sgd"], sgd={"lr": [1e-5, 0.1, 1e6], "weight_decay": [0.0, 1e-4]})
    outcomes = evaluate(Bank(write_bank(pixels)), both, 0)
    assert [(o.split, o.metric, o.condition) for o in outcomes] == [
        ("val", "top1", {}), ("test", "top1", {}), ("val", "top1", {"solver": "sgd"}), ("test", "top1", {"solver": "sgd"}),
    ]  # fmt: skip
    exact, sgd = outcomes[1], outcomes[3]
    assert sgd.chosen["lr"] == 0.1  # one that does not move, and one that diverges, lose
    assert sgd.selection == "lr and weight_decay best of 6 on val"
    assert abs(sgd.scores.mean() - exact.scores.mean()) < 3
    again = evaluate(Bank(write_bank(pixels)), both, 0)[3]
    assert np.array_equal(again.predicted, sgd.predicted)
    other = evaluate(Bank(write_bank(pixels)), both.model_copy(update={"solvers": ["sgd"]}), 1)
    assert [o.condition for o in other] == [{"solver": "sgd"}] * 2
