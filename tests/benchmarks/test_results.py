"""An interrupted benchmark goes on; a measurement made under other conditions does not count."""

import json

import pytest

from benchmarks import machine
from benchmarks.results import Results, by_round
from miyagi.errors import UserError


@pytest.fixture
def counted():
    """A measurement, and how often it was made."""
    calls = []

    def measure():
        calls.append(len(calls))
        return {"rate": 10.0 * len(calls)}

    measure.calls = calls
    return measure


def begun(folder, settings=None):
    results = Results(folder, "python -m benchmarks")
    results.begin("part", settings or {"images": 1})
    return results


def test_what_was_measured_is_not_measured_again(tmp_path, counted):
    assert begun(tmp_path).once("part", "ours/0", counted) == {"rate": 10.0}
    resumed = begun(tmp_path)  # as after a kill
    assert resumed.once("part", "ours/0", counted) == {"rate": 10.0}
    assert resumed.once("part", "ours/1", counted) == {"rate": 20.0}
    assert len(counted.calls) == 2
    assert json.loads((tmp_path / "part.json").read_text())["records"] == {
        "ours/0": {"rate": 10.0},
        "ours/1": {"rate": 20.0},
    }


def test_an_interrupted_measurement_leaves_nothing(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    results = begun(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        results.once("part", "ours/0", interrupted)
    assert results.load("part") is None


@pytest.mark.parametrize("what", ["machine", "versions", "code", "settings"])
def test_other_conditions_start_anew(tmp_path, counted, monkeypatch, what):
    begun(tmp_path).once("part", "ours/0", counted)
    if what == "settings":
        again = begun(tmp_path, {"images": 2})
    else:
        monkeypatch.setattr(machine, what, lambda: {"another": "one"})
        again = begun(tmp_path)
    assert again.once("part", "ours/0", counted) == {"rate": 20.0}


def test_the_code_is_that_of_the_library_and_of_what_measures(tmp_path, monkeypatch):
    (tmp_path / "ssl/miyagi").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    for name in ("ssl/miyagi/a.py", "benchmarks/data.py", "benchmarks/report.py", "dvc.yaml"):
        (tmp_path / name).write_text("1\n")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    before = machine.code()
    (tmp_path / "benchmarks/report.py").write_text("2\n")
    assert machine.code() == before
    for name in ("ssl/miyagi/a.py", "benchmarks/data.py"):
        (tmp_path / name).write_text("2\n")
        assert machine.code() != before
        before = machine.code()


def test_damaged_results_are_told(tmp_path):
    (tmp_path / "part.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*part\.json.*; delete it and run again"):
        begun(tmp_path)


def test_by_round():
    records = {
        "a/ours/0": {"rate": 1.0},
        "a/ours/1": {"rate": 2.0},
        "a/lightly/0": {"rate": 3.0},
        "ours/0": {"rate": 4.0},
    }
    assert by_round(records, "a/ours", lambda record: record["rate"]) == {"0": 1.0, "1": 2.0}


def test_machine():
    found = machine.machine()
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1
    assert found["processor"]
    assert machine.versions()["torch"].startswith("2.")
