import pytest
from scipy import stats

from miyagi.studies.curves import curves
from tests.studies.test_expand import study
from tests.studies.test_verdict import N, difference, first, grid, of


def test_each_value_of_the_grid_has_its_mean_and_interval(written):
    comparison = {"form": "peak_between", "test": "t", "over": "tau", "low": 0.1, "high": 0.5, "minimum": 1.0}
    grid(written, comparison, [100, 140, 190, 130])
    (curve,) = curves(of(written))
    assert (curve.name, curve.setting, curve.values) == ("it", "temperature", (0.01, 0.1, 0.5, 5.0))
    assert [point[0] for point in curve.points] == [50.0, 70.0, 95.0, 65.0]
    # Equal seeds: what is left is the spread over images, 100^2 x 0.7 x 0.3 N / (N - 1), over N.
    error = 100 * (0.7 * 0.3 / (N - 1)) ** 0.5
    assert curve.points[1][1:] == pytest.approx(stats.t.interval(0.95, N - 1, 70.0, error))


def test_values_that_are_no_numbers_are_told(written):
    heads = {"method": "simclr", "vary": {"head.kind": ["none", "mlp"]}}
    trend = {"form": "trend", "test": "t", "over": "head", "direction": "up", "minimum": 1.0}
    written.add(params={**study().params, "experiments": {"head": heads}}, comparisons={"it": trend})
    for seed in (0, 1):
        written.measure("head_none", seed, first(100))
        written.measure("head_mlp", seed, first(120))
    (curve,) = curves(of(written))
    assert (curve.setting, curve.values) == ("head.kind", ("none", "mlp"))


def test_a_comparison_without_a_grid_has_no_curve(written):
    assert difference(written, [first(150)] * 2, [first(120)] * 2).curves == ()
