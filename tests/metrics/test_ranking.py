"""Kendall's tau-b against scipy's, and an interval that behaves."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from miyagi.metrics.ranking import kendall, kendall_beyond, kendall_detectable, kendall_interval


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


def simulated(n, tau, sets, seed):
    """Taus of `sets` sets of n pairs from a bivariate normal, by scipy, and not by where their pairs turn."""
    rng = np.random.default_rng(seed)
    rho = np.sin(np.pi * tau / 2)
    a, e = rng.normal(size=(2, sets, n))
    b = rho * a + (1 - rho**2) ** 0.5 * e
    return np.array([kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize(("n", "order"), [(4, [0, 1, 2, 3]), (6, [0, 2, 1, 3, 5, 4]), (7, [6, 5, 4, 3, 0, 1, 2])])
def test_beyond_against_a_simulation_at_the_threshold(n, order):
    observed = kendalltau(range(n), order).statistic
    for threshold in (-0.5, 0.0, 0.7):
        taus = simulated(n, threshold, 4000, seed=n)
        expected = np.mean(taus >= observed - 1e-9), np.mean(taus <= observed + 1e-9)
        assert kendall_beyond(range(n), order, threshold) == pytest.approx(expected, abs=0.03)


def test_by_hand_without_agreement():
    """Where the true tau is 0 every order is as likely: a perfect one of four has probability 1 / 24."""
    above, below = kendall_beyond([1, 2, 3, 4], [1, 2, 3, 4], 0.0)
    assert above == pytest.approx(1 / 24, abs=0.005) and below == 1.0
    # one swap of neighbours leaves 5 of 6 pairs: (1 + 3) / 24 orders agree in 5 or more
    assert kendall_beyond([1, 2, 3, 4], [1, 2, 4, 3], 0.0)[0] == pytest.approx(4 / 24, abs=0.01)


def test_few_encoders_in_perfect_order_prove_little():
    assert kendall_beyond([1, 2, 3, 4], [1, 2, 3, 4], 0.7)[0] > 0.3
    tau, low, high = kendall_interval([1, 2, 3, 4], [1, 2, 3, 4])
    assert tau == high == 1 and low < 0
    assert kendall_interval([1, 2, 3, 4], [4, 3, 2, 1]) == (-1, -1, pytest.approx(-low, abs=0.05))


def test_what_could_have_been_shown():
    """Nothing above 0.5 by six; what is returned is found four times in five, by an independent simulation."""
    assert kendall_detectable(6, 0.5, level=0.002) == (None, pytest.approx(-0.84, abs=0.1))
    above, below = kendall_detectable(20, 0.0, level=0.025)
    assert above == pytest.approx(-below, abs=0.02)
    found = [kendall_beyond(*pair, 0.0)[0] < 0.025 for pair in pairs(20, above, 300)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def pairs(n, tau, sets):
    rho = np.sin(np.pi * tau / 2)
    for a, e in np.random.default_rng(9).normal(size=(sets, 2, n)):
        yield a, rho * a + (1 - rho**2) ** 0.5 * e


def test_more_encoders_say_more():
    rng = np.random.default_rng(2)

    def width(n):
        found = []
        for _ in range(20):
            a = rng.normal(size=n)
            _, low, high = kendall_interval(a, a + rng.normal(size=n))
            found.append(high - low)
        return np.mean(found)

    assert width(60) < 0.6 * width(15) < 0.6 * width(5)


@pytest.mark.parametrize("n", [5, 25])
def test_the_interval_covers_the_truth(n):
    """A 90 % interval holds the true tau in about 90 of 100 sets, in more where few things make few taus."""
    held = [low <= 0.5 <= high for _, low, high in (kendall_interval(*p, level=0.9) for p in pairs(n, 0.5, 400))]
    assert 0.86 <= np.mean(held) <= (0.95 if n > 5 else 1)


def test_the_interval_ends_where_beyond_begins():
    rng = np.random.default_rng(6)
    a = rng.normal(size=40)
    b = a + rng.normal(size=40)
    _, low, high = kendall_interval(a, b, level=0.9)
    assert kendall_beyond(a, b, low)[0] == pytest.approx(0.05, abs=0.003)
    assert kendall_beyond(a, b, high)[1] == pytest.approx(0.05, abs=0.003)
    assert kendall_beyond([1, 1, 1], [1, 2, 3], 0.5) == (1.0, 1.0)


def test_all_tied_is_nobodys_order():
    assert np.isnan(kendall([1, 1, 1], [1, 2, 3]))
    assert np.isnan(kendall_interval([1, 1, 1], [1, 2, 3])).all()


@pytest.mark.parametrize(("a", "b"), [([1], [1]), ([1, 2], [1, 2, 3]), ([1, np.nan], [1, 2]), ([[1, 2]], [[1, 2]])])
def test_what_is_refused(a, b):
    with pytest.raises(ValueError, match="finite numbers"):
        kendall(a, b)
