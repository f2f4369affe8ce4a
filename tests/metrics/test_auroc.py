import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from torchmetrics.functional import auroc as torchmetrics_auroc

from miyagi.metrics.auroc import auroc


@pytest.mark.parametrize("levels", [None, 7], ids=["no ties", "ties"])
def test_against_scikit_learn_and_torchmetrics(levels):
    import torch

    rng = np.random.default_rng(0)
    positive = rng.random(800) < 0.3
    scores = rng.normal(size=800) + positive
    if levels:
        scores = np.round(scores * levels / 4)
    found = auroc(scores, positive)
    assert found == pytest.approx(roc_auc_score(positive, scores), abs=1e-9)
    theirs = torchmetrics_auroc(torch.from_numpy(scores), torch.from_numpy(positive).long(), task="binary")
    assert levels or found == pytest.approx(float(theirs), abs=1e-6)  # torchmetrics takes scores for probabilities


def test_weights_are_repetitions():
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.5
    counts = rng.integers(0, 4, (5, 60))
    found = auroc(scores, positive, counts.astype(float))
    for value, count in zip(found, counts, strict=True):
        assert value == pytest.approx(roc_auc_score(positive.repeat(count), scores.repeat(count)), abs=1e-9)


def test_by_hand():
    # Of the pairs (1, 0), (1, 1), (3, 0), (3, 1): above, equal, above, above.
    assert auroc(np.array([0.0, 1, 1, 3]), np.array([False, False, True, True])) == 3.5 / 4
    assert np.isnan(auroc(np.array([0.0, 1]), np.array([True, True])))
