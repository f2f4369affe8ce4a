"""Tests of significance against scipy and values worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from miyagi.metrics.significance import holm, mcnemar, paired_t


def test_mcnemar_by_hand():
    a = 100.0 * np.array([1, 1, 1, 1, 1, 0, 1, 0, 1])
    b = 100.0 * np.array([0, 0, 0, 0, 0, 1, 1, 0, 1])
    # 5 wins, 1 loss: 2 x (C(6, 0) + C(6, 1)) / 2^6
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(2 * 7 / 64)
    assert mcnemar(a, a) == 1.0


def test_mcnemar_is_a_coins_tail():
    right = np.arange(400)
    a, b = right < 260, (right >= 30) & (right < 270)  # 30 wins, 10 losses
    assert mcnemar(a, b) == pytest.approx(2 * binom.cdf(10, 40, 0.5))


def test_mcnemar_under_the_null_is_rarely_small():
    rng = np.random.default_rng(0)
    small = sum(mcnemar(*(rng.random((2, 200)) < 0.8)) < 0.05 for _ in range(400))
    assert small / 400 < 0.05  # exact, hence a little conservative


def test_paired_t_equals_scipy():
    differences = [1.5, 0.2, 2.0, -0.3]
    assert paired_t(differences) == pytest.approx(ttest_1samp(differences, 0).pvalue)
    assert paired_t([2.0, 2.0]) == 0.0
    assert paired_t([0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="two seeds"):
        paired_t([1.0])


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.2 -> 4 x 0.01, 3 x 0.02, max(2 x 0.03, 0.06), 0.2
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_alarm():
    rng = np.random.default_rng(1)
    alarms = sum(min(holm(rng.random(10))) < 0.05 for _ in range(2000))
    assert alarms / 2000 < 0.065


def test_unequal_lengths():
    with pytest.raises(ValueError, match="same images"):
        mcnemar([1, 0], [1, 0, 1])
