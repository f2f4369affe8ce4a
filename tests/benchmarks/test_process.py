"""A measurement in a process of its own, and what is seen of its memory from outside."""

import os

import pytest

from benchmarks.process import fresh, here
from miyagi.errors import UserError

HERE = "tests.benchmarks.targets"


def test_a_fresh_process_has_nothing_of_this_one():
    import torch  # noqa: F401  (this one has it)

    found = fresh(f"{HERE}:identity", given=[1, "two"])
    assert found["pid"] != os.getpid()
    assert not found["torch"]
    assert found["given"] == [1, "two"]
    assert 2**20 < found["max_rss"] < 2**30
    assert "rss_anon" not in found


def test_here_is_this_process():
    assert here(f"{HERE}:identity")["pid"] == os.getpid()


def test_peak_memory_is_what_was_held():
    small, large = (fresh(f"{HERE}:hold", watch=True, mib=mib, seconds=0.3)["rss_anon"] for mib in (1, 200))
    assert large - small == pytest.approx(199 << 20, rel=0.05)


def test_a_failure_is_told_in_short():
    with pytest.raises(UserError, match=r"targets:fail failed: ValueError: no such thing"):
        fresh(f"{HERE}:fail")
