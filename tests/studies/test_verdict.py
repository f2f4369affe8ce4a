"""Verdicts on answers given by hand, against scipy and worked-out values."""

import shutil

import numpy as np
import pytest
from scipy import stats

from miyagi.errors import UserError
from miyagi.studies import findings, settings
from miyagi.studies.verdict import Judged, Part, corrected, judge, line
from tests.studies.conftest import Project
from tests.studies.test_expand import study

N = 200


def first(count):
    return np.arange(N) < count


def of(written, name="it"):
    return findings.measured(name, settings.read(name, written.paths), written.paths)


def difference(written, a, b, minimum=1.0):
    """The verdict's part on `a` - `b`, each a list of right answers a seed."""
    comparison = {"form": "difference", "test": "t", "plus": ["tau_0_5"], "minus": ["random"], "minimum": minimum}
    written.add(comparisons={"it": comparison})
    for seed in (0, 1):
        written.measure("tau_0_5", seed, a[seed])
        written.measure("random", seed, b[seed])
    return judge(of(written), 1)


def test_a_difference_is_students_t_over_seeds_and_images(written):
    a, b = [first(150), first(140)], [first(120), first(130)]
    (part,) = difference(written, a, b).parts
    x = 100.0 * (np.array(a, float) - np.array(b, float))
    error = (x.mean(1).var(ddof=1) / 2 + x.mean(0).var(ddof=1) / N) ** 0.5
    df = error**4 / ((x.mean(1).var(ddof=1) / 2) ** 2 / 1 + (x.mean(0).var(ddof=1) / N) ** 2 / (N - 1))
    assert part.span[0] == pytest.approx(10.0)
    assert part.span[1:] == pytest.approx(stats.t.interval(0.95, df, 10.0, error))
    assert part.confirm == pytest.approx(stats.t.sf(10.0 / error, df))
    assert part.refute == pytest.approx(stats.t.cdf(9.0 / error, df))
    assert part.enough


def test_confirmed_refuted_undecided(written, tmp_path):
    def verdict(name, a, b, minimum=1.0):
        folder = tmp_path / name
        folder.mkdir()
        judged = difference(Project(folder), [a, a], [b, b], minimum)
        return judged.verdict(judged.p)

    assert verdict("gains", first(170), first(120)) == "confirmed"
    assert verdict("loses", first(120), first(170)) == "refuted"
    assert verdict("nothing", first(120), first(120)) == "refuted"  # exactly no difference, and no spread
    late = np.arange(N) >= 78  # 122 right, on other images
    assert verdict("noisy", late, first(120)) == "undecided at this scale"
    assert verdict("real_but_too_small", first(140), first(120), minimum=15.0) == "undecided at this scale"
    assert verdict("surely_too_small", first(124), first(120), minimum=15.0) == "refuted"


def test_same_is_two_one_sided_tests(written):
    both = {"plus": ["tau_0_5"], "minus": ["random"], "test": "t"}
    written.add(
        comparisons={"near": {"form": "same", "minimum": 5.0, **both}, "far": {"form": "same", "minimum": 0.5, **both}}
    )
    for seed in (0, 1):
        written.measure("tau_0_5", seed, first(124))
        written.measure("random", seed, first(120))
    near, far = judge(of(written), 1).parts
    x = 100.0 * (first(124).astype(float) - first(120))
    error = (x.var(ddof=1) / N) ** 0.5
    assert near.confirm == pytest.approx(stats.t.cdf((2 - 5) / error, N - 1))  # the nearer of the two bounds
    assert near.enough
    assert not far.enough
    assert far.refute == pytest.approx(stats.t.sf((2 - 0.5) / error, N - 1))


def test_a_line_rises_by_what_polyfit_says():
    for values in ([1.0, 4.0, 2.0], [0.0, 1.0, 5.0, 3.0, 9.0]):
        steps = np.arange(len(values))
        assert line(len(values)) @ values == pytest.approx(np.polyfit(steps, values, 1)[0] * (len(values) - 1))


GRID = {"method": "simclr", "vary": {"temperature": [0.01, 0.1, 0.5, 5.0]}}
NAMES = ["tau_0_01", "tau_0_1", "tau_0_5", "tau_5_0"]


def grid(written, comparison, right, val=None):
    params = {**study().params, "experiments": {"tau": GRID}}
    written.add(params=params, comparisons={"it": comparison})
    for seed in (0, 1):
        for name, count, chosen in zip(NAMES, right, val or right, strict=True):
            written.measure(name, seed, first(count), first(chosen))
    return judge(of(written), 1).parts[0]


def test_a_peak_is_found_on_validation_and_measured_on_test(written):
    comparison = {"form": "peak_between", "test": "t", "over": "tau", "low": 0.1, "high": 0.5, "minimum": 1.0}
    # On test 0.5 is the best of all; validation prefers 0.1, and of the outer two 5.0.
    part = grid(written, comparison, [100, 140, 190, 130], [90, 160, 150, 110])
    assert part.said == "tau_0_1 - tau_5_0, chosen on val"
    assert part.span[0] == pytest.approx(5.0)


def test_a_trend_down(written):
    comparison = {"form": "trend", "test": "t", "over": "tau", "direction": "down", "minimum": 1.0}
    part = grid(written, comparison, [160, 140, 120, 100])
    assert part.span[0] == pytest.approx(30.0)
    assert part.confirm < 1e-6


def test_an_error_is_turned_round_and_conditions_choose_the_row(written):
    term = {"experiment": "tau_0_5", "condition": {"shot": 5}}
    written.add(
        comparisons={"it": {"form": "difference", "test": "t", "plus": [term], "minus": ["random"], "minimum": 1.0}}
    )
    for seed in (0, 1):
        written.measure("tau_0_5", seed, first(150), higher_is_better=False)
        written.measure("random", seed, first(160), higher_is_better=False)
    with pytest.raises(UserError, match=r"tau_0_5, seed 0, knn: 0 rows are .*'shot': 5"):
        judge(of(written), 1)


def test_kendall_over_arms(written):
    comparison = {
        "form": "kendall", "test": "bootstrap", "at_least": 0.5,
        "a": [{"experiment": name, "arm": "one"} for name in NAMES],
        "b": [{"experiment": name, "arm": "two"} for name in NAMES],
    }  # fmt: skip
    written.add(
        params={**study().params, "experiments": {"tau": GRID}},
        arms={"one": {}, "two": {}},
        comparisons={"it": comparison},
    )
    for seed in (0, 1):
        for index, name in enumerate(NAMES):
            written.measure(name, seed, first(100 + 10 * index), arm="one")
            written.measure(name, seed, first(100 + 10 * [0, 1, 3, 2][index]), arm="two")
    (part,) = judge(of(written), 1).parts
    assert part.span[0] == pytest.approx(stats.kendalltau([0, 1, 2, 3], [0, 1, 3, 2]).statistic)
    assert part.enough
    assert part.detectable is None  # not even a perfect order of four
    assert 0.4 < part.confirm < 0.8 and part.refute > 0.4  # four things tell little


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.measure("random", 1, first(120)[:150]), "random, seed 1, knn saw other images of digits"),
        (lambda w: w.measure("random", 1, first(120), value=50.0), "disagree"),
        (lambda w: w.measure("random", 1, first(120), metric="mAP"), "0 rows are"),
        (lambda w: shutil.rmtree(w.paths.root / ".miyagi/studies-run/it-main/runs/random"), "miyagi study run it"),
    ],
)  # fmt: skip
def test_what_contradicts_the_study(written, spoil, message):
    difference(written, [first(150)] * 2, [first(120)] * 2)
    spoil(written)
    with pytest.raises((UserError, ValueError), match=message):
        judge(of(written), 1)


def test_n_is_what_the_study_says(written):
    written.add(n=150)
    for name in ("tau_0_5", "random"):
        for seed in (0, 1):
            written.measure(name, seed, first(120))
    with pytest.raises(UserError, match=r"studies/it.yaml: n is 150, but tau_0_5 was measured on 200 test images"):
        judge(of(written), 1)


def part(confirm, refute, enough=True):
    return Part("a", "difference", "a - b", (2.0, 1.0, 3.0), "at least 1", confirm, refute, enough, 1.0)


def test_all_must_hold_and_one_is_enough_to_refute():
    assert Judged([part(0.001, 0.9), part(0.02, 0.8)], N, 2).p == pytest.approx(0.04)
    assert Judged([part(0.9, 0.01), part(0.001, 0.9)], N, 2).p == pytest.approx(2 * 2 * 0.01)
    assert Judged([part(0.7, 0.6)], N, 2).p == 1.0
    assert Judged([part(0.001, 0.9), part(0.001, 0.9, enough=False)], N, 2).verdict(0.004) == "undecided at this scale"


def test_holm_over_the_set_counts_what_has_not_run():
    found = {"a": Judged([part(0.004, 0.9)], N, 2), "b": None, "c": Judged([part(0.01, 0.9)], N, 2), "d": None}
    # sorted 0.008, 0.02, 1, 1 -> 4 x 0.008, 3 x 0.02
    assert corrected(found) == pytest.approx({"a": 0.032, "b": 1.0, "c": 0.06, "d": 1.0})
