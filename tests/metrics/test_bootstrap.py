"""The intervals against scipy, and against values worked out by hand."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom, bootstrap, ttest_rel

from miyagi.metrics.bootstrap import CHUNK, difference, interval, paired, t_interval, weighted

HITS = np.repeat([1.0, 0.0], [820, 180])


def test_hits_match_the_exact_binomial() -> None:
    # A redrawn mean of 1,000 hits and misses is Binomial(1000, 0.82) / 1000; its quantiles are known exactly.
    # One hit more or less is the grain of 200,000 draws.
    low, high = interval(HITS, draws=200_000)
    assert low == pytest.approx(binom.ppf(0.025, 1000, 0.82) / 1000, abs=0.0011)
    assert high == pytest.approx(binom.ppf(0.975, 1000, 0.82) / 1000, abs=0.0011)


@pytest.mark.parametrize("values", [HITS, np.random.default_rng(1).gamma(2.0, size=500)], ids=["hits", "many values"])
def test_agrees_with_scipy(values: np.ndarray) -> None:
    ours = interval(values, draws=20_000)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0, batch=500)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours[0] == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours[1] == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)


def test_equal_arguments_give_equal_bits_and_the_seed_counts() -> None:
    values = np.random.default_rng(2).normal(size=300)
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)


def test_order_of_hits_does_not_matter() -> None:
    assert interval(HITS) == interval(HITS[::-1])


def test_level_widens() -> None:
    narrow, wide = interval(HITS, level=0.8), interval(HITS, level=0.99)
    assert wide[0] < narrow[0] < 0.82 < narrow[1] < wide[1]


def test_memory_stays_bounded() -> None:
    values = np.random.default_rng(3).normal(size=20_000)  # 2,000 draws at once would take 320 MB
    tracemalloc.start()
    interval(values, draws=400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 8 * CHUNK


def test_paired_sees_what_two_intervals_cannot() -> None:
    rng = np.random.default_rng(4)
    b = (rng.random(2000) < 0.8).astype(float)
    a = b.copy()
    a[np.flatnonzero(b == 0)[:30]] = 1.0  # 30 more hits, none lost
    difference, low, high = paired(a, b)
    assert difference == pytest.approx(0.015)
    assert 0 < low < difference < high
    assert interval(a)[0] < interval(b)[1]  # unpaired, the two intervals overlap


def test_paired_includes_zero_where_gains_and_losses_balance() -> None:
    a, b = np.tile([1.0, 0.0, 1.0], 300), np.tile([0.0, 1.0, 1.0], 300)
    difference, low, high = paired(a, b)
    assert difference == 0
    assert low < 0 < high


def test_paired_is_antisymmetric_in_value() -> None:
    a, b = HITS, np.roll(HITS, 37)
    assert paired(a, b)[0] == -paired(b, a)[0]


def test_t_interval_by_hand() -> None:
    # mean 4, s = sqrt(((-2)^2 + 0 + 2^2) / 2) = 2, t(0.975; 2) = 4.302653, half = 4.302653 * 2 / sqrt(3) = 4.968275
    mean, low, high = t_interval([2.0, 4.0, 6.0])
    assert (mean, low, high) == pytest.approx((4.0, 4.0 - 4.968275, 4.0 + 4.968275), abs=1e-5)


def test_one_image_and_equal_images_have_no_width() -> None:
    assert interval([5.0]) == (5.0, 5.0)
    assert interval(np.full(100, 100.0)) == (100.0, 100.0)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, float("nan")]], ids=["none", "two axes", "nan"])
def test_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        interval(values)


def test_refuses_other_mistakes() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired([1.0, 0.0], [1.0])
    with pytest.raises(ValueError, match="two seeds"):
        t_interval([1.0])
    with pytest.raises(ValueError, match="level"):
        interval([1.0, 2.0], level=95)


def test_weighted_is_the_bootstrap_of_any_statistic() -> None:
    """Of a mean it is `interval`; of a difference of two groups it is scipy's."""
    found, redrawn = weighted(lambda counts: counts @ HITS / counts.sum(1), [len(HITS)], draws=20_000)
    low, high = interval(HITS, draws=20_000)
    assert found == pytest.approx((0.82, low, high), abs=0.0021)
    assert (redrawn.shape, redrawn.dtype) == ((20_000,), np.float32)
    assert np.quantile(redrawn, [0.025, 0.975]) == pytest.approx(found[1:], abs=1e-6)
    rng = np.random.default_rng(5)
    a, b = rng.normal(1, 1, 300), rng.normal(0, 2, 200)

    def apart(counts: np.ndarray) -> np.ndarray:
        assert (counts[:, :300].sum(1) == 300).all() and (counts[:, 300:].sum(1) == 200).all()
        return counts[:, :300] @ a / 300 - counts[:, 300:] @ b / 200

    (value, low, high), _ = weighted(apart, [300, 200], draws=20_000)
    theirs = bootstrap(
        (a, b), lambda a, b, axis: a.mean(axis) - b.mean(axis), method="percentile", rng=0
    ).confidence_interval
    assert value == pytest.approx(a.mean() - b.mean())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    first, second = (weighted(apart, [300, 200]) for _ in range(2))
    assert first[0] == second[0] and np.array_equal(first[1], second[1])


def test_weighted_leaves_out_what_is_not_defined() -> None:
    # A rare event: some redrawn sets have none, and the ratio is NaN there.
    rare = np.r_[1.0, np.zeros(9)]

    def ratio(counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return counts[:, 0] / (counts @ rare)

    found, redrawn = weighted(ratio, [10])
    assert found == (1, 1, 1)
    assert len(redrawn) == 2000 and np.isnan(redrawn).mean() == pytest.approx(0.9**10, abs=0.05)
    with pytest.raises(ValueError, match="none of 50 redrawn sets of 10 images has a number"):
        weighted(lambda counts: np.full(len(counts), np.nan), [10], draws=50)


def test_two_numbers_of_the_same_redrawn_sets_are_paired() -> None:
    """Of means it is the paired interval: what both have in common cancels out."""
    rng = np.random.default_rng(6)
    a, noise = rng.normal(size=400), 0.1 * rng.normal(size=400)
    b = a - 0.02 + noise
    (_, redrawn_a), (_, redrawn_b) = (
        weighted(lambda counts, x=x: counts @ x / counts.sum(1), [400], draws=20_000) for x in (a, b)
    )
    low, high, p = difference(redrawn_a, redrawn_b)
    assert (low, high) == pytest.approx(paired(a, b, draws=20_000)[1:], abs=5e-4)
    assert high - low < 0.2 * (interval(a)[1] - interval(a)[0])
    assert p == pytest.approx(ttest_rel(a, b).pvalue, rel=0.2, abs=0.01)


def test_a_difference_by_hand() -> None:
    a, b = np.float32([1, 2, 3, 4, np.nan]), np.float32([0, 0, 0, 5, 0])
    low, high, p = difference(a, b, level=0.5)  # 1, 2, 3 and -1
    assert (low, high) == (0.5, 2.25)
    assert p == pytest.approx(2 * (1 + 1) / (4 + 1))
    assert difference(a[:3], b[:3])[2] == pytest.approx(2 * 1 / 4)  # never 0
    assert difference(b, b)[2] == 1
    with pytest.raises(ValueError, match="same redrawn sets"):
        difference(a, b[:3])
    with pytest.raises(ValueError, match="no redrawn set has both numbers"):
        difference(a[4:], b[4:])
