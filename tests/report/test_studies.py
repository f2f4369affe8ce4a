"""Verdicts as their file has them: read back, drawn, and in the page."""

import dataclasses
import json

import pytest

from miyagi.report.html import render
from miyagi.report.studies import read
from tests.report.test_html import BAD, PAGE

CURVES = [
    {"name": "with_l2", "setting": "temperature", "values": [0.01, 0.1, 1], "points": [[50.0, 48.0, 52.0], [60.0, 58.0, 62.0], [55.0, 53.0, 57.0]]},
    {"name": "without_l2", "setting": "temperature", "values": [1.0, 10.0], "points": [[40.0, 38.0, 42.0], [45.0, 43.0, 47.0]]},
]  # fmt: skip
TESTED = {"confirm": 0.001, "refute": 0.9, "enough": True}
PARTS = [
    {"name": "with_l2", "form": "peak_between", "said": "unit_0_1 - unit_1_0, chosen on val", "effect": 5.0, "low": 2.5, "high": 7.5, "claimed": "at least 1", "detectable": 3.14, **TESTED},
    {"name": "ranks", "form": "kendall", "said": "4 experiments", "effect": 0.5, "low": -0.5, "high": 1.0, "claimed": "tau at least 0.5", "detectable": None, **TESTED},
    {"name": "ties", "form": "kendall", "said": "4 experiments", "effect": None, "low": None, "high": None, "claimed": "tau at most 0.5", "detectable": None, **TESTED},
]  # fmt: skip
STUDY = {
    "name": "temperature", "finding": 2, "claim": f"The best is near 0.1. {BAD}", "source": BAD, "limits": "Colours.",
    "verdict": "confirmed", "p": 0.0123, "n": 2000, "seeds": 3, "parts": PARTS, "curves": CURVES,
}  # fmt: skip
WAITING = STUDY | {"name": "later", "finding": 3, "verdict": None, "p": None, "parts": [], "curves": []}


def of(*studies):
    return read(json.dumps(studies))


def drawn(**curve):
    (study,) = of(STUDY | {"curves": [{"name": "it", "setting": "x", **curve}]})
    return study.trends[0]


def test_curves_over_one_setting_share_their_axes():
    (trend,) = of(STUDY)[0].trends
    assert trend.title == "by temperature"
    assert trend.ticks == ["0.01", "0.1", "1", "10"]
    assert trend.places == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert trend.series == {"with_l2": [50.0, 60.0, 55.0, None], "without_l2": [None, None, 40.0, 45.0]}
    assert trend.words("without_l2") == "1 40.00 % [38.00, 42.00], 10 45.00 % [43.00, 47.00]"
    # The axis goes from 38 to 62 and 6 % beyond; x = 38 + 218 / 3, y = 10 + 114 (63.44 - value) / 26.88
    svg = trend.svg("with_l2")
    assert '<polyline class="interval" points="110.7,33.1 110.7,16.1"/>' in svg
    assert svg.count('class="interval"') == 3
    assert svg.count('class="other"') == 1


def test_two_settings_are_two_pictures():
    other = CURVES[1] | {"setting": "number"}
    (study,) = of(STUDY | {"curves": [CURVES[0], other]})
    assert [trend.title for trend in study.trends] == ["by temperature", "by number"]


def test_the_axis_is_logarithmic_where_values_are_wide_and_positive():
    points = [[50.0, 49.0, 51.0]] * 3
    assert drawn(values=[1, 2, 5], points=points).places == [0, 0.25, 1]
    assert drawn(values=[0, 5, 50], points=points).places == pytest.approx([0, 0.1, 1])
    assert drawn(values=[1, 10, 100], points=points).places == pytest.approx([0, 0.5, 1])
    words = drawn(values=["none", "linear", "mlp"], points=points)
    assert (words.ticks, words.places) == (["none", "linear", "mlp"], [0, 0.5, 1])
    assert drawn(values=[3], points=points[:1]).places == [0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "Invalid JSON"),
        ("{}", "valid array"),
        (json.dumps([{key: value for key, value in STUDY.items() if key != "claim"}]), "^0.claim: Field required"),
        (json.dumps([STUDY, STUDY | {"p": "low"}]), "^1.p: "),
        (json.dumps([STUDY | {"curves": [CURVES[0] | {"values": [1.0]}]}]), "1 values have 3 points"),
        (json.dumps([STUDY | {"curves": [CURVES[0] | {"values": [], "points": []}]}]), "^0.curves.0.values: "),
    ],
)
def test_what_is_no_such_file(text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_the_section():
    html = render(dataclasses.replace(PAGE, studies=of(STUDY, WAITING)))
    assert BAD not in html
    assert html.count("<script>") == 1
    assert '2. temperature: <span class="better">confirmed</span>' in html
    assert "p 0.012 after Holm over 2 studies, n 2000, 3 seeds. Not tested: Colours." in html
    assert '[+2.50, +7.50]</span></td><td>at least 1</td><td class="number">3.1</td></tr>' in html
    assert "tau <b>+0.50</b>" in html
    assert "none: all are tied" in html
    assert "with_l2</b></figcaption>" in html
    assert "Not run: later. Run one by <code>miyagi study run later</code>, then <code>miyagi study" in html
    assert '<a href="#studies">' in html


def test_where_nothing_has_run_there_is_one_line_and_without_studies_none():
    html = render(dataclasses.replace(PAGE, studies=of(WAITING)))
    assert "Not run: later." in html
    assert 'id="study-1"' not in html
    assert "#studies" not in render(PAGE)
