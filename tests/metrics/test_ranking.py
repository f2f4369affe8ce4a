"""Kendall's tau-b against scipy's, and an interval that behaves."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from miyagi.metrics.ranking import kendall, kendall_beyond, kendall_interval


@pytest.mark.parametrize("levels", [None, 5, 2])
def test_equals_scipy(levels):
    """With and without ties."""
    rng = np.random.default_rng(levels or 0)
    for n in (2, 3, 7, 30):
        a, b = rng.normal(size=(2, n)) if levels is None else rng.integers(0, levels, size=(2, n))
        expected = kendalltau(a, b, variant="b").statistic
        assert kendall(a, b) == pytest.approx(expected, nan_ok=True)


def test_by_hand():
    # pairs: (1, 2) and (1, 3) agree, (2, 3) does not
    assert kendall([1, 2, 3], [10, 30, 20]) == pytest.approx(1 / 3)
    # (1, 2) agrees, (1, 3) agrees, (2, 3) is tied in b: 2 / sqrt(3 x 2)
    assert kendall([1, 2, 3], [10, 30, 30]) == pytest.approx(2 / 6**0.5)


def test_the_interval_of_redrawn_encoders():
    """Against scipy's tau of the same redrawn sets."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=12)
    b = a + rng.normal(scale=0.5, size=12)
    tau, low, high = kendall_interval(a, b, draws=300, seed=3)
    rows = np.random.default_rng(3).integers(0, 12, size=(300, 12))
    expected = [kendalltau(a[r], b[r]).statistic for r in rows]
    assert tau == pytest.approx(kendalltau(a, b).statistic)
    assert (low, high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))
    assert -1 <= low < tau < high <= 1
    assert kendall_interval(a, b, draws=300, seed=3) == (tau, low, high)


def test_more_encoders_say_more():
    rng = np.random.default_rng(2)

    def width(n):
        found = []
        for _ in range(20):
            a = rng.normal(size=n)
            _, low, high = kendall_interval(a, a + rng.normal(size=n), draws=200)
            found.append(high - low)
        return np.mean(found)

    assert width(60) < 0.6 * width(15) < 0.6 * width(5)


def test_the_interval_covers_the_truth():
    """Of correlated normals with r = 0.7 tau is 2 / pi arcsin r = 0.494; a 90 % interval holds it in about 90 of 100."""
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(100):
        a = rng.normal(size=25)
        b = 0.7 * a + (1 - 0.49) ** 0.5 * rng.normal(size=25)
        _, low, high = kendall_interval(a, b, draws=300, level=0.9, seed=trial)
        held += low <= 2 / np.pi * np.arcsin(0.7) <= high
    assert 80 <= held <= 98


def test_beyond_is_the_intervals_other_side():
    """A 90 % interval that ends at a threshold leaves 5 % of the redrawn taus beyond it."""
    rng = np.random.default_rng(6)
    a = rng.normal(size=40)
    b = a + rng.normal(size=40)
    _, low, high = kendall_interval(a, b, level=0.9)
    assert kendall_beyond(a, b, low)[0] == pytest.approx(0.05, abs=0.003)
    assert kendall_beyond(a, b, high)[1] == pytest.approx(0.05, abs=0.003)
    assert kendall_beyond([1, 2, 3, 4], [1, 2, 3, 4], 0.5) == (pytest.approx(1 / 2001, rel=0.1), 1.0)
    assert kendall_beyond([1, 1, 1], [1, 2, 3], 0.5) == (1.0, 1.0)


def test_all_tied_is_nobodys_order():
    assert np.isnan(kendall([1, 1, 1], [1, 2, 3]))
    assert np.isnan(kendall_interval([1, 1, 1], [1, 2, 3])).all()


@pytest.mark.parametrize(("a", "b"), [([1], [1]), ([1, 2], [1, 2, 3]), ([1, np.nan], [1, 2]), ([[1, 2]], [[1, 2]])])
def test_what_is_refused(a, b):
    with pytest.raises(ValueError, match="finite numbers"):
        kendall(a, b)
