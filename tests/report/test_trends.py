import re

import pytest

from miyagi.report.tables import Group, Line
from miyagi.report.trends import trends


def line(experiment, value, layer="encoder", chosen=None, **condition):
    row = {"layer": layer, "condition": condition, "chosen": chosen}
    return Line("seed", experiment, "simclr", (0,), (value, value - 1, value + 1), rows=(row,))


def test_layers_first_to_last():
    layers = {
        name: [line("a", 10.0 * i, name)] for i, name in enumerate(("encoder", "head", "layer1", "layer2", "stem"))
    }
    layers["stem"].append(line("b", 5.0, "stem"))
    (found,) = trends([Group("layers", "0" * 16, "digits", "top1", layers)])
    assert found.ticks == ["stem", "layer1", "layer2", "encoder", "head"]
    assert found.series == {"a": [40.0, 20.0, 30.0, 0.0, 10.0], "b": [5.0, None, None, None, None]}
    assert found.places == [0, 0.25, 0.5, 0.75, 1]
    assert found.words("b") == "stem 5.00 %"


def test_the_layer_that_was_chosen_is_no_layer_more():
    layers = {name: [line("a", 10.0 * i, name, {"c": 0.1})] for i, name in enumerate(("conv1", "conv2", "encoder"))}
    layers["best"] = [line("a", 20.0, "best", {"layer": "encoder", "c": 0.1})]
    (found,) = trends([Group("layers", "0" * 16, "digits", "top1", layers)])
    assert found.ticks == ["conv1", "conv2", "encoder"]
    assert found.series == {"a": [0.0, 10.0, 20.0]}


def test_labels_on_a_logarithmic_axis():
    parts = {
        f"encoder, labels {n}": [line("a", value, labels=n, fraction=n / 1e4)]
        for n, value in ((1000, 3.0), (10, 1.0), (100, 2.0))
    }
    (found,) = trends([Group("lowlabel", "0" * 16, "digits", "top1", parts)])
    assert found.ticks == ["10", "100", "1,000"]
    assert found.places == pytest.approx([0, 0.5, 1])
    assert found.series["a"] == [1.0, 2.0, 3.0]


def test_other_conditions_stay_apart():
    parts = {
        f"encoder, {mode} {n}": [line("a", float(n), labels=n, mode=mode)]
        for mode in ("frozen", "tuned")
        for n in (10, 20)
    }
    found = trends([Group("transfer", "0" * 16, "d", "top1", parts)])
    assert [trend.series["a"] for trend in found] == [[10, 20]] * 2
    assert [trend.title for trend in found] == [
        f"transfer on d: top1 by labels, {mode}" for mode in ("mode frozen", "mode tuned")
    ]


def test_too_little_for_a_picture():
    one = {"encoder": [line("a", 1.0)], "head": [line("a", 2.0, "head")]}
    assert trends([Group("knn", "0" * 16, "d", "top1", one)]) == []


def test_the_panel_draws_its_own_line_and_escapes_names():
    parts = {name: [line("a", float(i), name), line("b", 4.0, name)] for i, name in enumerate(("<x>", "y", "z"))}
    (found,) = trends([Group("layers", "0" * 16, "d", "top1", parts)])
    svg = found.svg("a")
    own, other = (re.search(rf'class="{kind}"><polyline points="([^"]*)"', svg)[1].split() for kind in ("own", "other"))
    heights = [float(point.split(",")[1]) for point in own]
    assert heights[0] > heights[1] > heights[2]  # larger is higher
    assert len({point.split(",")[1] for point in other}) == 1
    assert svg.count("<circle") == 3
    assert "&lt;x&gt;" in svg and "<x>" not in svg
