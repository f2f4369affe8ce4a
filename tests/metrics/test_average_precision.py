import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from miyagi.metrics.average_precision import average_precision


@pytest.mark.parametrize("levels", [None, 5], ids=["no ties", "ties"])
@pytest.mark.parametrize("share", [0.02, 0.4])
def test_integral_against_scikit_learn(levels, share):
    rng = np.random.default_rng(0)
    positive = rng.random(700) < share
    scores = rng.normal(size=700) + positive
    if levels:
        scores = np.round(scores * levels / 4)
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores), abs=1e-9)


def test_11_point_against_its_definition():
    """The devkit's loop, written down: for each t, the best precision among the prefixes that reach recall t."""
    rng = np.random.default_rng(1)
    scores, positive = rng.normal(size=50), rng.random(50) < 0.3
    scores += positive
    ranked = positive[np.argsort(-scores)]
    prefixes = [(ranked[:n].sum() / ranked.sum(), ranked[:n].mean()) for n in range(1, 51)]
    expected = np.mean([max(p for r, p in prefixes if r >= t - 1e-12) for t in np.linspace(0, 1, 11)])
    assert average_precision(scores, positive, "11_point") == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    # Ranked +, -, +: precision 1 at recall 1/2, 2/3 at recall 1.
    scores, positive = np.array([3.0, 2, 1]), np.array([True, False, True])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, positive, "11_point") == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


@pytest.mark.parametrize("kind", ["integral", "11_point"])
def test_weights_are_repetitions(kind):
    rng = np.random.default_rng(2)
    scores, positive = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.5
    counts = rng.integers(0, 3, (5, 60))
    found = average_precision(scores, positive, kind, counts.astype(float))
    for value, count in zip(found, counts, strict=True):
        expected = average_precision(scores.repeat(count), positive.repeat(count), kind)
        assert value == pytest.approx(expected[0], abs=1e-9)


@pytest.mark.parametrize("kind", ["integral", "11_point"])
def test_without_a_positive_there_is_none(kind):
    assert np.isnan(average_precision(np.arange(3.0), np.zeros(3, bool), kind)).all()
