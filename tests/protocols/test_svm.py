"""The SVM protocol on real digits, against scikit-learn's own cross-validation."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from miyagi.protocols.base import Bank, DoesNotApply
from miyagi.protocols.svm import Settings, evaluate

C = [0.01, 0.1, 10.0]


def searched(x, y, scoring):
    return GridSearchCV(LinearSVC(dual="auto", max_iter=2000, random_state=0), {"C": C}, scoring=scoring, cv=3).fit(
        x, y
    )


@pytest.fixture(scope="module")
def multi_hot(pixels):
    """Three attributes of each digit, of which an image may have several: even, a multiple of 3, larger than 4."""
    found = dict(pixels)
    for split in ("train", "val", "test"):
        y = pixels[f"{split}.labels"]
        found[f"{split}.labels"] = np.stack([y % 2 == 0, y % 3 == 0, y > 4], axis=1).astype(np.uint8)
    return found


def test_one_label_equals_a_grid_search(write_bank, pixels):
    model = searched(normalize(pixels["train.encoder"]), pixels["train.labels"], "accuracy")
    outcomes = evaluate(Bank(write_bank(pixels)), Settings(c=C), 0)
    assert [o.split for o in outcomes] == ["val", "test"]
    for outcome in outcomes:
        expected = model.predict(normalize(pixels[f"{outcome.split}.encoder"]))
        assert np.array_equal(outcome.predicted, expected)
        assert outcome.chosen == {"c": model.best_params_["C"]}
        assert outcome.selection == "c best of 3 on 3 folds of train"
        assert (outcome.metric, outcome.condition) == ("top1", {})
    assert outcomes[1].scores.mean() > 90


def test_several_labels_equal_a_grid_search_for_each_class(write_bank, multi_hot):
    outcomes = evaluate(Bank(write_bank(multi_hot)), Settings(c=C), 0)
    models = [
        searched(normalize(multi_hot["train.encoder"]), y, "average_precision") for y in multi_hot["train.labels"].T
    ]
    assert [(o.split, o.metric, o.condition) for o in outcomes] == [
        ("val", "map", {"ap": "integral"}), ("test", "map", {"ap": "integral"}),
    ]  # fmt: skip
    for outcome in outcomes:
        x, y = normalize(multi_hot[f"{outcome.split}.encoder"]), multi_hot[f"{outcome.split}.labels"]
        each = [
            100 * average_precision_score(positive, model.decision_function(x))
            for model, positive in zip(models, y.T, strict=True)
        ]
        assert outcome.scores == pytest.approx(each, abs=1e-6)
        value, low, high = outcome.span
        assert value == pytest.approx(np.mean(each), abs=1e-6)
        assert low < value < high and high - low < 10
        assert np.quantile(outcome.redrawn, [0.025, 0.975]) == pytest.approx((low, high))
        assert outcome.chosen == {"c": [model.best_params_["C"] for model in models]}
        assert outcome.n == len(x)


def test_a_class_without_a_positive_is_left_out_of_the_mean(write_bank, multi_hot):
    gone = dict(multi_hot)
    gone["test.labels"] = multi_hot["test.labels"].copy()
    gone["test.labels"][:, 1] = 0
    before, after = (
        evaluate(Bank(write_bank(b, n)), Settings(c=[1.0]), 0)[1] for b, n in ((multi_hot, "a"), (gone, "b"))
    )
    assert after.span[0] == pytest.approx(before.scores[[0, 2]].mean())
    gone["test.labels"][:] = 0
    with pytest.raises(DoesNotApply, match="no image of test has a label"):
        evaluate(Bank(write_bank(gone, "c")), Settings(c=[1.0]), 0)


def test_positives_may_weigh_more(write_bank, multi_hot):
    """As if each positive image stood there twice, which is what its loss counted twice is."""
    bank = Bank(write_bank(multi_hot))
    even, twice = (evaluate(bank, Settings(c=[0.1], positive_weight=w), 0)[1].scores for w in (1.0, 2.0))
    x, y = normalize(multi_hot["train.encoder"]), multi_hot["train.labels"]
    x_test, y_test = normalize(multi_hot["test.encoder"]), multi_hot["test.labels"]
    expected = []
    for positive, true in zip(y.T, y_test.T, strict=True):
        rows = np.r_[np.arange(len(x)), np.flatnonzero(positive)]
        model = LinearSVC(C=0.1, dual=False, tol=1e-6, max_iter=10_000).fit(x[rows], positive[rows])
        expected.append(100 * average_precision_score(true, model.decision_function(x_test)))
    assert twice == pytest.approx(expected, abs=0.05)
    assert np.abs(twice - even).max() > 0.1


def test_11_points_are_another_number(write_bank, multi_hot):
    found = {
        ap: evaluate(Bank(write_bank(multi_hot)), Settings(c=[1.0], ap=ap), 0)[1] for ap in ("integral", "11_point")
    }
    assert found["11_point"].condition == {"ap": "11_point"}
    assert 0 < abs(found["11_point"].span[0] - found["integral"].span[0]) < 5


@pytest.mark.parametrize("several", [False, True])
def test_a_class_with_one_image(write_bank, pixels, multi_hot, several):
    rare = dict(multi_hot if several else pixels)
    y = rare["train.labels"].copy()
    if several:
        y[:, 2] = 0
        y[7, 2] = 1
    else:
        y[y == 2] = 3
        y[7] = 2
    rare["train.labels"] = y
    with pytest.raises(DoesNotApply, match=r"evaluate\.svm\.folds: 3 folds, but class 2 tells 1 training"):
        evaluate(Bank(write_bank(rare)), Settings(c=C), 0)
