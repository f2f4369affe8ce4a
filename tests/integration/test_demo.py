"""What the README promises a newcomer, as written there: `make demo` on the shipped params.yaml, and every command."""

import csv
import functools
import json
import re
import time

import pytest

from tests.integration.project import ROOT, checkout, commands, made

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """`make demo` in a new checkout, with the environment that runs this test instead of a second one."""
    project = checkout(tmp_path_factory.mktemp("demo") / "miyagi")
    start = time.monotonic()
    project.said = project.run("sh", "-c", made("make demo"), timeout=1800).stdout
    project.seconds = time.monotonic() - start
    return project


@pytest.fixture(scope="module")
def said(demo):
    """said(command): what it prints after the demo; it runs once."""
    return functools.cache(lambda command: demo.run("sh", "-c", made(command)).stdout)


@pytest.mark.timeout(1800)
def test_it_ends_with_three_lines_within_its_budget(demo):
    report, mlflow, best = demo.said.strip().splitlines()[-3:]
    assert report == "report: reports/report.html"
    assert (demo.root / "reports/report.html").stat().st_size > 100_000
    assert mlflow.startswith("mlflow: mlflow ui --backend-store-uri sqlite:///")
    assert re.fullmatch(r"best: \w+ \d\d\.\d\d % \[.*\] test top1 .* \(chosen on validation: .* %\)", best)
    assert demo.seconds < 900


def test_every_experiment_is_in_the_table_and_learning_beats_the_floor(demo):
    rows = list(csv.DictReader((demo.root / "reports/results.csv").open()))
    wanted = ("linear", "test", "fashion_mnist")
    linear = {row["experiment"]: row for row in rows if (row["protocol"], row["split"], row["dataset"]) == wanted}
    assert set(linear) == {"random", "supervised", "rotation", "simclr", "moco", "simclr_tuned"}
    for name in ("rotation", "simclr", "moco", "simclr_tuned", "supervised"):
        assert float(linear[name]["vs_random_low"]) > 0, name
        assert int(linear[name]["n"]) == 10_000


def test_a_small_sweep_is_shown(demo):
    rows = list(csv.DictReader((demo.root / "runs/simclr_tuned/trials.csv").open()))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["winner"] for row in rows].count("yes") == 1
    assert {row["reproducible"] for row in rows} == {"yes"}
    assert "simclr_tuned: knn on validation" in (demo.root / "reports/report.html").read_text()


def test_fine_tuning_stands_beside_training_from_scratch(demo):
    rows = list(csv.DictReader((demo.root / "reports/results.csv").open()))
    tuned = {(row["experiment"], row["protocol"], row["condition"]): row for row in rows if row["split"] == "test"}
    for labels in ('{"fraction": 0.01, "labels": 100}', '{"fraction": 0.1, "labels": 1000}'):
        row = tuned["simclr", "lowlabel", labels]
        assert row["floor"] == "random" and row["vs_random"]
        assert json.loads(tuned["random", "lowlabel", labels]["chosen"])["start"] == "scratch"
    conditions = {condition for _, protocol, condition in tuned if protocol == "transfer"}
    assert {json.loads(condition)["mode"] for condition in conditions} == {"frozen", "finetuned"}


def test_few_shot_rows_say_which_classes_pretraining_saw(demo):
    rows = list(csv.DictReader((demo.root / "reports/results.csv").open()))
    found = {(r["dataset"], json.loads(r["condition"])["classes"]) for r in rows if r["protocol"] == "fewshot"}
    assert found == {("fashion_mnist", "seen"), ("digits", "unseen")}


def test_git_is_clean_but_for_the_lock(demo):
    assert demo.run("git", "status", "--porcelain").stdout.split() == ["??", "dvc.lock"]


def test_a_second_run_does_nothing_quickly(demo):
    start = time.perf_counter()
    assert demo.repro() == set()
    assert time.perf_counter() - start < 4


@pytest.mark.timeout(600)
def test_the_estimate_is_within_a_factor_of_one_and_a_half(demo, said):
    """Of the whole, set-up and reading of params.yaml included; images come from the betons, which are there by now."""
    total = next(line for line in said("miyagi estimate").splitlines() if line.startswith("total"))
    _, _, value, unit, *_ = total.split()
    estimated = float(value) * {"s": 1, "min": 60}[unit]
    assert demo.seconds / 1.5 < estimated < demo.seconds * 1.5


def test_the_readme_names_the_two_commands():
    assert commands("README.md")[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", [c for c in commands("README.md") if c not in ("make demo", "make test")])
def test_a_command_of_the_readme(said, command):
    assert said(command).strip() or command == "dvc params diff"


def test_make_help_lists_every_target(demo):
    listed = set(re.findall(r"^  make (\S+)", demo.run("make", "help").stdout, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert listed == targets
    assert len(targets) <= 12
