"""When ours has what lightly ends with, against curves worked out by hand."""

import pytest

from benchmarks.time_to_accuracy import ends, reached, section

LIGHTLY = [[0, 20.0], [30, 30.0], [60, 40.0]]
SETTINGS = {
    "k": 5,
    "temperature": 0.1,
    "images": 100,
    "epochs": 2,
    "pretraining": {"lr": 0.1},
    "entry": {"method": "simclr"},
}


def records(*ours, lightly=LIGHTLY):
    found = {}
    for seed, curve in enumerate(ours):
        found[f"lightly/{seed}"] = {"curve": lightly, "imports": 3.0}
        found[f"ours/{seed}"] = {"curve": curve, "imports": 2.0, "jit": 1.0}
    return found


def test_reached():
    assert reached([[0, 20.0], [10, 36.0], [20, 44.0]], LIGHTLY) == (15.0, 60.0)
    assert reached([[0, 20.0], [10, 39.9]], LIGHTLY) is None
    assert reached([[0, 40.0], [10, 50.0]], LIGHTLY) is None  # our untrained encoder has it
    assert reached([[0, 20.0], [10, 50.0]], [[0, 41.0], [30, 40.0]]) is None  # so has theirs


def test_lightly_may_have_it_before_its_end():
    """It ends with 40, but passed 40 half way between 10 s and 20 s."""
    assert reached([[0, 20.0], [10, 40.0]], [[0, 20.0], [10, 30.0], [20, 50.0], [30, 40.0]]) == (10.0, 15.0)


def test_the_ratio_is_of_each_seed_and_its_median_counts():
    curves = [[[0, 20.0], [seconds, 40.0]] for seconds in (10, 15, 30)]  # 6, 4 and 2 times as fast
    found = section(records(*curves), SETTINGS)
    target = found.targets[0]
    assert (target.measured.median, target.measured.low, target.measured.high) == (4.0, 2.0, 6.0)
    assert target.holds is True
    assert [row[-1] for row in found.rows if row[1] == "Miyagi"] == ["6.00 x", "4.00 x", "2.00 x"]
    assert section(records(*curves[1:], curves[2]), SETTINGS).targets[0].holds is False


def test_the_ends_are_compared_by_welch():
    """40, 41, 42 and 40, 40, 43: a difference of 0; standard error sqrt(1 / 3 + 3 / 3), 3.2 degrees of freedom."""
    ours = [[[0, 20.0], [10, end]] for end in (40.0, 41.0, 42.0)]
    found = records(*ours)
    for seed, end in enumerate((40.0, 40.0, 43.0)):
        found[f"lightly/{seed}"] = {"curve": [[0, 20.0], [30, end]], "imports": 3.0}
    target = section(found, SETTINGS).targets[1]
    assert target.measured.median == pytest.approx(0)
    assert target.measured.high == -target.measured.low == pytest.approx((4 / 3) ** 0.5 * 3.073, rel=1e-2)
    assert target.holds is False
    assert ends([50.0, 50.1], [40.0, 40.1]).holds is True
    assert ends([50.0], [40.0]).holds is None


def test_a_seed_that_never_gets_there_breaks_the_promise():
    found = section(records([[0, 20.0], [10, 40.0]], [[0, 20.0], [10, 39.0]]), SETTINGS)
    target = found.targets[0]
    assert (target.measured, target.holds) == (None, False)
    assert [row[5] for row in found.rows] == ["60.0", "10.0", "-", "not reached"]


def test_what_an_untrained_encoder_has_is_no_time():
    found = section(records([[0, 45.0], [10, 50.0]]), SETTINGS)
    assert found.targets[0].holds is False
    assert found.rows[1][5] == "had untrained"
