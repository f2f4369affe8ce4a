"""Sweeps from a trials.csv written by hand, in the form that the stage writes."""

import numpy as np
import pytest

from miyagi.report import sweep_figures, trials
from miyagi.report.sweeps import sweep
from miyagi.sweep import table
from tests.report.test_html import PAGE, dataclasses, render

PATHS = ["temperature", "head.kind", "head.width", "augment.blur"]


def row(number, value, temperature, kind="linear", width=None, state="complete", **more):
    values = {"temperature": temperature, "head.kind": kind, "augment.blur": {"p": 0.5} if number % 2 else None}
    values |= {} if width is None else {"head.width": width}
    return {
        "number": number, "state": state, "epochs": 1 if state == "pruned" else 3, "metric": "knn", "value": value,
        **{table.PREFIX + path: found for path, found in values.items()}, "winner": False, "reproducible": True, **more,
    }  # fmt: skip


ROWS = [
    row(0, 60.0, 0.2, "mlp", 256, fresh=61.0, fresh_low=58.0, fresh_high=64.0),
    row(1, 62.0, 0.1, fresh=60.0, fresh_low=57.0, fresh_high=63.0, vs_defaults=-1.0, vs_low=-2.0, vs_high=-0.5),
    row(2, 30.0, 0.9, "mlp", 16, state="pruned"),
    row(3, 64.0, 0.07, "mlp", 64, fresh=63.5, fresh_low=60.0, fresh_high=66.0, vs_defaults=2.5, vs_low=0.4, vs_high=4.0, winner=True),
    row(4, None, 0.5, state="failed", reason="diverged"),
    row(5, 61.0, 0.3),
]  # fmt: skip


def read(rows=ROWS, **options):
    return trials.read(table.text(rows, PATHS, **options))


def test_what_the_stage_writes_is_read_back():
    found, reproducible = read()
    assert reproducible and [trial.number for trial in found] == [0, 1, 2, 3, 4, 5]
    assert found[1].values == {"temperature": 0.1, "head.kind": "linear", "augment.blur": {"p": 0.5}}
    assert found[0].values["augment.blur"] is None and found[0].values["head.width"] == 256
    assert (found[3].fresh, found[3].versus, found[3].winner) == ((63.5, 60.0, 66.0), (2.5, 0.4, 4.0), True)
    assert (found[4].value, found[4].reason, found[4].fresh) == (None, "diverged", None)
    assert trials.read(table.text([], [])) == ([], True)


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", table.text([ROWS[0]], PATHS), table.text([{**ROWS[0], "number": "x"}], PATHS)]
)
def test_anything_else_is_refused(text):
    with pytest.raises((KeyError, ValueError)):
        trials.read(text)


def test_words():
    found = sweep("a", *read())
    assert found.words == [
        "6 trials (4 complete, 1 pruned, 1 failed), 16 epochs in all; without pruning 18.",
        "Trial 3 won: temperature 0.07, head.kind mlp, head.width 64, augment.blur {\"p\": 0.5}.",
    ]  # fmt: skip
    assert [trial.number for trial in found.again] == [0, 1, 3]
    first = [{**ROWS[0], "winner": True}, *({**other, "winner": False} for other in ROWS[1:])]
    assert "The defaults won: no trial was better on fresh seeds." in sweep("a", *read(first)).words


def test_importance_finds_what_decides():
    """The value is a function of x alone; y is noise."""
    rng = np.random.default_rng(0)
    draws = rng.uniform(0.1, 1, (40, 2))
    found = [
        trials.Trial(i, "complete", "", 1, "knn", -((x - 0.5) ** 2), None, {"x": x, "y": y, "kind": "ab"[i % 2]}, None, None, i == 0)
        for i, (x, y) in enumerate(draws.tolist())
    ]  # fmt: skip
    weights = trials.importances(found)
    assert set(weights) == {"x", "y", "kind"} and weights["x"] > 0.6
    assert trials.importances(found[:3]) == {}
    assert trials.importances([dataclasses.replace(trial, value=1.0) for trial in found]) == {}


def test_the_front():
    points = [(5.0, 50.0), (9.0, 60.0), (9.5, 58.0), (10.0, 70.0), (4.0, 40.0), (5.0, 49.0)]
    rows = [row(i, value, 0.2, seconds=seconds, winner=i == 0) for i, (seconds, value) in enumerate(points)]
    found, _ = read(rows, seconds=True)
    assert [trial.number for trial in trials.front(found)] == [4, 0, 1, 3]
    assert "Accuracy against seconds; the line is the Pareto front." in sweep("a", found, False).pictures


def test_the_page_shows_a_sweep():
    other = [{**each, "reproducible": False} for each in ROWS]
    html = render(dataclasses.replace(PAGE, sweeps=[sweep("a", *read()), sweep("b", *read(other))]))
    assert html.count('<h3 id="sweep-a">a: knn on validation</h3>') == 1
    assert html.count("reproducible: false") == 1
    assert "▲ yes, better" in html and "▼ yes, worse" in html
    assert "<b>+2.50</b>" in html and "[+0.40, +4.00]" in html
    assert html.count("(defaults)") == 2 and "winner</span>" in html
    ids = [part.split('"')[0] for part in html.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert 'href="#sweeps"' in html
    assert 'href="#sweeps"' not in render(PAGE)


def test_pictures_are_svg_in_the_pages_colours():
    found = sweep("a", *read())
    assert len(found.pictures) == 4  # four whole trials are enough for importances, and no seconds
    for svg in found.pictures.values():
        assert svg.startswith("<svg") and "currentColor" in svg and "http" not in svg
    assert sweep_figures.history("a", read()[0]) == sweep_figures.history("a", read()[0])
