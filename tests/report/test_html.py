"""The page from data made by hand; the stage's test looks at it in a browser."""

import dataclasses
import platform
import subprocess
import sys
from importlib.metadata import version

from miyagi.report.agreement import Agreement
from miyagi.report.averages import Average
from miyagi.report.differences import Pair
from miyagi.report.figures import Neighbour, Query
from miyagi.report.html import Data, Page, render, versions
from miyagi.report.robustness import Relative
from miyagi.report.tables import Group, Line

BAD = '"><script>alert(1)</script>'
PAGE = Page(
    dataset="digits",
    made="today",
    best=None,
    methods={"random": "random", "a": "simclr"},
    intervals=["bootstrap over images, 95 %"],
    groups=[
        Group("linear", "0123456789abcdef", "digits", "top1", {
            "encoder": [
                Line("seed", "random", "random", (0,), (50.0, 40.0, 60.0), 51.0, n=1000),
                Line("seed", "a", "simclr", (0,), (48.0, 38.0, 58.0), 49.0, (-2.0, -3.0, -1.0), "random", 1000),
                Line("seed", "b", "simclr", (0,), (51.0, 41.0, 61.0), None, (1.0, -1.0, 3.0), "deep_floor", 1000),
            ],
        }),
    ],
    curves=[],
    neighbours={"a": [Query("data:,q", BAD, [Neighbour("data:,n", BAD, False)])]},
    data=[Data("digits", {"train": 12345, "val": 1, "test": 2}, [BAD] * 120, [BAD])],
    origins=[],
    descriptions={"a": f"method: {BAD}"},
)  # fmt: skip


def test_escapes_names_wherever_they_stand() -> None:
    html = render(PAGE)
    assert BAD not in html
    assert html.count("<script>") == 1
    assert html.count("&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;") == 2 + 2 + 100 + 1 + 1


def test_says_plainly_what_is_not_better() -> None:
    html = render(PAGE)
    assert html.count("▼ yes, worse") == 1
    assert "▲ yes, better" not in html
    assert '<b>+1.00</b> <span class="range">[-1.00, +3.00]</span>' in html
    assert "(deep_floor)" in html


def test_says_what_is_lacking() -> None:
    html = render(PAGE)
    assert "No experiment has the method <em>supervised</em>" in html
    assert "<em>random</em>, so this report lacks" not in html
    assert "Best: none" in html
    assert "and 20 more" in html
    assert "12,345" in html
    assert "#asked" not in html
    assert "#neighbours" not in render(dataclasses.replace(PAGE, neighbours={}))


def test_versions_come_from_metadata() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")


def test_rendering_imports_neither_torch_nor_ffcv() -> None:
    code = "import sys, miyagi.report.html as h; h.versions(); assert not {'torch', 'ffcv', 'mlflow'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})


def test_shows_tests_agreement_and_relative_errors_where_there_are_any() -> None:
    page = dataclasses.replace(
        PAGE,
        pairs={("linear", "0123456789abcdef", "digits", "top1"): [
            Pair("encoder", "a", BAD, (-3.0, -5.0, -1.0), 0.0123, 0.0246, "McNemar"),
        ]},
        agreements=[Agreement("digits", "top1", "linear", "lowlabel, fraction 0.1", 4, (0.67, -0.33, 1.0))],
        averages=[
            Average("natural", ("a", "b"), BAD, "transfer", "0123456789abcdef", "top1", "encoder", (51.5, 49.0, 54.0), None)
        ],
        relative=[Relative("a", "corruptions", "digits", "error", "supervised", 19, 87.65)],
    )  # fmt: skip
    html = render(page)
    assert BAD not in html
    for shown in (
        "any two experiments (1)",
        "0.012",
        "0.025",
        "McNemar",
        "+0.67",
        "lowlabel, fraction 0.1",
        "87.7",
        "51.5",
    ):
        assert shown in html, shown
    for heading in ("any two experiments", "Do protocols rank alike?", "Averages over groups", "Mean corruption error"):
        assert heading in html and heading not in render(PAGE)


def test_a_table_of_many_conditions_is_folded() -> None:
    group = PAGE.groups[0]
    (lines,) = group.layers.values()
    many = dataclasses.replace(group, layers={f"encoder, severity {i}": lines for i in range(13)})
    assert "<summary>13 conditions</summary>" in render(dataclasses.replace(PAGE, groups=[many]))
    assert "conditions</summary>" not in render(PAGE)
