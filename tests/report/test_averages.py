"""Means over groups of data sets, by hand."""

from typing import Any

import pytest

from miyagi.report.averages import averages
from miyagi.report.tables import Group, Line, Span

GROUPS = {"flowers": "natural", "pets": "natural", "cells": "specialised", "depth": "structured", "digits": None}


def line(name: str, test: Span | None, seed: int = 0, **changes: Any) -> Line:
    return Line(changes.pop("kind", "seed"), name, "simclr", (seed,), test, **changes)


def table(dataset: str, *lines: Line, settings: str = "a") -> Group:
    return Group("transfer", settings, dataset, "top1", {"encoder, mode frozen": lines})


def test_one_seed_by_hand() -> None:
    tables = [
        table("flowers", line("a", (60.0, 57.0, 62.0), versus=(5.0, 2.0, 8.0))),
        table("pets", line("a", (40.0, 36.0, 44.0), versus=(1.0, -3.0, 5.0))),
        table("cells", line("a", (80.0, 79.0, 81.0), versus=(0.0, -1.0, 1.0))),
        table("depth", line("a", (20.0, 19.0, 21.0))),
        table("digits", line("a", (99.0, 98.0, 100.0))),
    ]
    natural, every = averages(tables, GROUPS)
    assert (natural.group, natural.datasets, natural.experiment) == ("natural", ("flowers", "pets"), "a")
    assert (natural.protocol, natural.metric, natural.part) == ("transfer", "top1", "encoder, mode frozen")
    assert natural.value == pytest.approx((50.0, 50.0 - 2.5, 50.0 + 20**0.5 / 2))  # sqrt(3^2 + 4^2) / 2
    assert natural.versus == pytest.approx((3.0, 0.5, 5.5))
    assert (every.group, every.datasets) == ("all", ("cells", "depth", "flowers", "pets"))
    assert every.value[0] == 50.0  # each data set counts once, not each group
    assert every.versus is None  # depth has no floor


def test_over_seeds_each_seed_counts_once() -> None:
    def lines(first: float, second: float) -> list[Line]:
        mean = line("a", (0.0, 0.0, 0.0), kind="mean")
        return [line("a", (first, 0.0, 99.0)), line("a", (second, 0.0, 99.0), seed=1), mean]

    (found,) = averages([table("flowers", *lines(60, 62)), table("pets", *lines(40, 46))], GROUPS)
    half = 12.706204736432095 * 8**0.5 / 2**0.5  # the seeds' means are 50 and 54: t(0.975; 1) s / sqrt(2)
    assert found.value == pytest.approx((52.0, 52.0 - half, 52.0 + half))


def test_what_lacks_something_gets_no_mean() -> None:
    pets = table("pets", line("a", (1.0, 0.0, 2.0)), line("b", (1.0, 0.0, 2.0)))
    assert averages([pets], GROUPS) == []
    flowers = table("flowers", line("b", (1.0, 0.0, 2.0)), line("c", (1.0, 0.0, 2.0)))
    assert [entry.experiment for entry in averages([pets, flowers], GROUPS)] == ["b"]
    untested = table("flowers", line("a", None, val=3.0))
    assert averages([pets, untested], GROUPS) == []
    another_seed = table("flowers", line("a", (1.0, 0.0, 2.0), seed=1))
    assert averages([pets, another_seed], GROUPS) == []


def test_other_settings_never_meet() -> None:
    tables = [table("pets", line("a", (1.0, 0.0, 2.0))), table("flowers", line("a", (1.0, 0.0, 2.0)), settings="b")]
    assert averages(tables, GROUPS) == []
