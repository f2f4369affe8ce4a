"""A bar on a terminal, a line now and then elsewhere."""

import io
import sys

import pytest

from miyagi import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.setattr("tqdm.std.time", iter(range(100)).__next__)  # a second an item
    assert list(progress.progress(iter("abc"), 3, "writing", "img")) == list("abc")
    assert "writing:  67%" in stream.getvalue() and "2/3" in stream.getvalue()


@pytest.mark.parametrize(("every", "lines"), [(0.0, ["writing: 1 of 3 img", "writing: 2 of 3 img"]), (60.0, [])])
def test_elsewhere_there_are_plain_lines(monkeypatch, capsys, every, lines):
    monkeypatch.setattr(progress, "EVERY", every)
    clock = iter(range(1, 100))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(progress.progress(iter("abc"), 3, "writing", "img")) == list("abc")
    assert capsys.readouterr().err.splitlines()[-2:] == lines


def test_a_long_wait_is_told_of_less_and_less_often(monkeypatch, capsys):
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))  # a second a look, two where a line is told
    list(progress.progress(range(300), 300, "training", "steps"))
    assert [int(line.split()[1]) for line in capsys.readouterr().err.splitlines()] == [5, 16, 37, 78, 139, 200, 261]
