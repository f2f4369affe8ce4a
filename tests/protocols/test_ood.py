"""OOD detectors on real digits, some of them turned upside down, against scikit-learn."""

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from miyagi.errors import UserError
from miyagi.protocols.base import Bank, DoesNotApply
from miyagi.protocols.ood import Settings, evaluate


@pytest.fixture
def banks(write_bank, pixels):
    """Digits, and the same digits turned upside down, in fewer images."""
    rng = np.random.default_rng(0)
    noisy = {k: v + 0.05 * rng.normal(size=v.shape) if "labels" not in k else v for k, v in pixels.items()}
    other = {key: value if "labels" in key else value[:, ::-1] for key, value in noisy.items()}
    other["test.encoder"], other["test.labels"] = other["test.encoder"][:250], other["test.labels"][:250]
    bank, turned = Bank(write_bank(noisy, "a")), Bank(write_bank(other, "b"))
    bank.others = {"turned": turned}
    return bank, noisy, other


def mixed(own, other, score):
    return roc_auc_score(np.repeat([0, 1], [len(own), len(other)]), np.r_[score(own), score(other)])


def test_knn_equals_scikit_learn(banks):
    bank, own, other = banks
    outcomes = evaluate(bank, Settings(detectors=["knn"], k=7), 0)
    model = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(
        own["train.encoder"].astype(np.float64)
    )
    for outcome in outcomes:
        key = f"{outcome.split}.encoder"
        expected = mixed(own[key], other[key], lambda x: model.kneighbors(x.astype(np.float64))[0][:, -1])
        value, low, high = outcome.span
        assert value == pytest.approx(100 * expected, abs=1e-4)  # float32 cosines may tie where float64 ones do not
        assert low <= value <= high and low < high
        assert outcome.condition == {"against": "turned", "detector": "knn"}
        assert outcome.n == len(outcome.scores) == len(own[key]) + len(other[key])
        assert np.quantile(outcome.redrawn, [0.025, 0.975]) == pytest.approx((low, high))


def test_mahalanobis_equals_scikit_learn(banks):
    bank, own, other = banks
    labels = own["train.labels"]
    x = own["train.encoder"].astype(np.float32).astype(np.float64)
    means = np.stack([x[labels == c].mean(0) for c in range(10)])
    shared = EmpiricalCovariance(assume_centered=True).fit(x - means[labels])

    def score(x):
        x = x.astype(np.float32).astype(np.float64)
        return np.stack([shared.mahalanobis(x - mean) for mean in means]).min(0)

    for outcome in evaluate(bank, Settings(detectors=["mahalanobis"], ridge=0.0), 0):
        key = f"{outcome.split}.encoder"
        assert np.allclose(outcome.scores, np.r_[score(own[key]), score(other[key])], rtol=1e-6)
        assert outcome.span[0] == pytest.approx(100 * mixed(own[key], other[key], score), abs=1e-6)
        assert outcome.span[0] > 70


def test_itself_is_chance(write_bank, pixels):
    bank = Bank(write_bank(pixels))
    bank.others = {"twin": Bank(write_bank(pixels, "twin"))}
    for outcome in evaluate(bank, Settings(), 0):
        assert outcome.span[0] == pytest.approx(50)
        assert outcome.span[1] < 50 < outcome.span[2]


def test_odd_input(write_bank, pixels, banks):
    with pytest.raises(DoesNotApply, match="no other data set"):
        evaluate(Bank(write_bank(pixels)), Settings(), 0)
    bank, own, _ = banks
    with pytest.raises(DoesNotApply, match=r"evaluate\.ood\.k: 601 neighbours, but the bank holds 600 training images"):
        evaluate(bank, Settings(k=601), 0)
    dead = Bank(write_bank(own | {"train.encoder": np.ones((600, 64))}, "dead"))
    dead.others = bank.others
    with pytest.raises(UserError, match=r"evaluate\.ood\.ridge: the covariance of the features is singular"):
        evaluate(dead, Settings(detectors=["mahalanobis"]), 0)
    with pytest.raises(UserError, match="no layer 'conv9'"):
        evaluate(bank, Settings(layers=["conv9"]), 0)


def test_a_class_with_one_image_has_a_mean(banks, write_bank):
    bank, own, _ = banks
    labels = own["train.labels"].copy()
    labels[0] = 10
    rare = Bank(write_bank(own | {"train.labels": labels}, "rare"))
    rare.others = bank.others
    assert all(np.isfinite(o.span).all() for o in evaluate(rare, Settings(), 0))
