"""Means over seeds and images, against scipy, a hand-worked case and simulation."""

import numpy as np
import pytest
from scipy import stats

from miyagi.metrics.crossed import Mean, crossed


def test_by_hand():
    # Seeds' means 1 and 3: var 2, / 2 = 1. Images' means 0, 2, 4: var 4, / 3. df = (7/3)^2 / (1 / 1 + (16/9) / 2)
    found = crossed([[-1, 1, 3], [1, 3, 5]])
    assert found.value == pytest.approx(2)
    assert found.error == pytest.approx((7 / 3) ** 0.5)
    assert found.df == pytest.approx((49 / 9) / (1 + 8 / 9))


def test_one_seed_is_students_t_over_images():
    x = np.random.default_rng(0).normal(0.3, 1, 40)
    found, theirs = crossed([x]), stats.ttest_1samp(x, 0, alternative="greater")
    assert found.df == 39
    assert found.above(0) == pytest.approx(theirs.pvalue)
    assert found.below(0) == pytest.approx(1 - theirs.pvalue)
    assert found.interval() == pytest.approx(tuple(stats.ttest_1samp(x, 0).confidence_interval(0.95)))


def test_images_that_do_not_matter_leave_students_t_over_seeds():
    seeds = np.array([1.0, 2.0, 4.0, 2.5])
    found, theirs = crossed(np.repeat(seeds[:, None], 5, 1)), stats.ttest_1samp(seeds, 0.5)
    assert found.df == pytest.approx(3)
    assert 2 * found.above(0.5) == pytest.approx(theirs.pvalue)


def test_it_keeps_its_level_where_images_and_seeds_both_vary():
    """Of 2,000 experiments without an effect about one in twenty is called one, and not many more."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(2000):
        x = rng.normal(size=(4, 1)) * 0.3 + rng.normal(size=(1, 60)) * 2 + rng.normal(size=(4, 60))
        found = crossed(x)
        alarms += 2 * min(found.above(0), found.below(0)) < 0.05
    assert 0.02 < alarms / 2000 < 0.06


def test_seeds_alone_would_not_keep_it():
    """Why images count: the same images are seen by every seed, so their luck is no part of the spread over seeds."""
    rng = np.random.default_rng(2)
    alone = 0
    for _ in range(500):
        x = rng.normal(size=(1, 60)) * 2 + rng.normal(size=(4, 60))
        alone += stats.ttest_1samp(x.mean(1), 0).pvalue < 0.05
    assert alone / 500 > 0.2


@pytest.mark.parametrize(("df", "level"), [(4.0, 0.05), (30.0, 0.05), (12.5, 0.004)])
def test_what_could_have_been_detected_is_detected_four_times_in_five(df, level):
    mean = Mean(0.0, 0.7, df)
    shift = mean.detectable(level)
    rng = np.random.default_rng(3)
    drawn = (rng.normal(shift / 0.7, 1, 40_000)) / np.sqrt(rng.chisquare(df, 40_000) / df)
    assert np.mean(drawn > stats.t.ppf(1 - level / 2, df)) == pytest.approx(0.8, abs=0.01)


def test_detectable_with_many_degrees_of_freedom_is_the_textbooks():
    assert Mean(0.0, 1.0, 1e6).detectable(0.05) == pytest.approx(1.959964 + 0.841621, abs=1e-3)


def test_without_any_spread():
    found = crossed(np.full((2, 3), 1.5))
    assert (found.error, found.above(0), found.below(2), found.above(2), found.detectable(0.05)) == (0, 0, 0, 1, 0)


@pytest.mark.parametrize("scores", [[1.0, 2.0], [[1.0]], [[1.0, float("nan")]], np.empty((0, 3))])
def test_what_is_refused(scores):
    with pytest.raises(ValueError, match="S x N"):
        crossed(scores)
