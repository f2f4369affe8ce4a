"""Sweeps by the real tools: inside the DAG, killed with -9, and two processes on one Postgres."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from flows.postgres import Postgres
from miyagi.code import declared
from miyagi.registry import METHODS
from tests.integration.project import ROOT, Project, checkout, shrink
from tests.integration.test_dependencies import HARMLESS, IMPORTS

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SWEEP = {
    "space": {
        "temperature": {"low": 0.05, "high": 1.0, "log": True},
        "head.kind": {"choices": ["linear", "mlp"]},
        "head.width": {"low": 16, "high": 512, "log": True, "when": {"head.kind": "mlp"}},
    },
    "trials": 4,
    "objective": {"epochs": 3},
    "pruner": "median",
    "fresh_seeds": 1,
}


def tune(project, **changes):
    """Give simclr a sweep."""
    project.edit(lambda p: p["experiments"]["simclr"].update(sweep={**SWEEP, **changes}))


def rows(project):
    with (project.root / "runs/simclr/trials.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def journal(project):
    (file,) = (project.root / ".miyagi/studies").glob("simclr-*.log")
    return file


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The small project with its betons and nothing else; `project`, after a whole `dvc repro`, takes much longer."""
    project = checkout(tmp_path_factory.mktemp("prepared") / "miyagi")
    project.edit(shrink)
    project.run("miyagi", "prepare", "digits")
    return project


@pytest.fixture
def fresh(prepared, tmp_path):
    """A copy of the prepared project to do anything to."""
    shutil.copytree(prepared.root, tmp_path / "miyagi", symlinks=True)
    return Project(tmp_path / "miyagi")


def waiting_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def reports(project):
    """How many epochs the trials have reported so far; op 7 of Optuna's journal."""
    with contextlib.suppress(ValueError):
        return sum(json.loads(line)["op_code"] == 7 for line in journal(project).read_text().splitlines())
    return 0


def test_a_sweep_in_the_dag(project):
    """It runs once; a change of its space reruns it and what follows, nothing else; the winner is what is trained."""
    tune(project)
    follows = {s.format("simclr") for s in ("sweep@{}", "pretrain@{}-0", "embed@{}-0-digits", "probe@{}-0-knn",
                                            "probe@{}-0-linear", "finetune@{}-0-lowlabel")} | {"report"}  # fmt: skip
    ran = project.repro()
    assert {"sweep@simclr", "report"} <= ran <= follows
    assert [row["number"] for row in rows(project)] == ["0", "1", "2", "3"]
    (best,) = [row for row in rows(project) if row["winner"] == "yes"]
    described = (project.root / "runs/simclr/experiment.yaml").read_text()
    assert f"temperature: {best['space.temperature']}\n" in described
    assert "simclr: knn on validation" in (project.root / "reports/report.html").read_text()
    assert project.repro() == set()
    space = {**SWEEP["space"], "temperature": {"low": 0.1, "high": 0.4}}
    tune(project, space=space)
    ran = project.repro()
    assert "sweep@simclr" in ran and ran <= follows
    assert project.repro() == set()


def test_dependencies_of_a_sweep_cover_what_it_imports(fresh):
    tune(fresh, trials=1)
    done = fresh.run("python", "-c", IMPORTS, "sweep", "simclr")
    imported = {name.split(".", 1)[1] for name in json.loads(done.stdout.splitlines()[-1])}
    package = ROOT / "ssl" / "miyagi"
    covered = declared(ROOT / "dvc.yaml", "sweep", {"method": "simclr"})
    names = {file.relative_to(package).with_suffix("").as_posix().replace("/", ".") for file in covered}
    modules = {name for name in imported if (package / f"{name.replace('.', '/')}.py").is_file()}
    assert {name for name in modules if name.split(".")[0] not in HARMLESS and name not in names} == set()
    assert METHODS.file("simclr") in covered


def test_killed_in_the_middle_of_a_trial_it_ends_the_same(fresh, kill):
    """kill -9 after the first epoch of trial 1 and again later; the trials are those of an uninterrupted sweep."""
    tune(fresh, objective={"epochs": 9}, pruner="hyperband")
    fresh.run("miyagi", "sweep", "simclr")
    whole, studies = rows(fresh), fresh.root / ".miyagi/studies"
    text = (fresh.root / "runs/simclr/trials.csv").read_bytes()
    shutil.rmtree(studies)
    for epochs in (10, 11):  # trial 0 reports 9
        started = fresh.start("miyagi", "sweep", "simclr")
        kill(started)
        waiting_for(lambda epochs=epochs: list(studies.glob("*.log")) and reports(fresh) >= epochs)
        os.killpg(started.pid, signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL
    fresh.run("miyagi", "sweep", "simclr")
    assert rows(fresh) == whole
    assert (fresh.root / "runs/simclr/trials.csv").read_bytes() == text
    assert not any(path.is_dir() for path in (studies / "running").iterdir())


def test_workers_of_one_machine_and_one_that_is_killed(fresh, kill):
    """Two processes share a journal; a killed worker's trial is tried again, and every number is there once."""
    tune(fresh, trials=4, jobs=2, objective={"epochs": 40}, pruner="none")
    started = fresh.start("miyagi", "sweep", "simclr")
    kill(started)
    children = f"/proc/{started.pid}/task/{started.pid}/children"

    def busy():
        with contextlib.suppress(OSError, ValueError):
            found = [int(pid) for pid in Path(children).read_text().split()]
            text = journal(fresh).read_text()
            return next((pid for pid in found if f'"worker":{pid}' in text), None)
        return None

    waiting_for(busy)
    os.kill(busy(), signal.SIGKILL)
    out, _ = started.communicate(timeout=300)
    assert started.returncode == 0, out
    found = rows(fresh)
    assert [row["number"] for row in found] == ["0", "1", "2", "3"]
    assert {row["state"] for row in found} == {"complete"} and {row["reproducible"] for row in found} == {"no"}


@pytest.fixture
def postgres(tmp_path):
    server = Postgres(tmp_path / "postgres.log")
    server.start()
    yield server
    server.delete()


def test_two_machines_on_one_postgres(fresh, postgres, kill):
    """A worker joins, the process that began is killed, the stage is run again: no trial is lost or counted twice."""
    import psycopg

    url = postgres.url("optuna", dialect="postgresql")
    tune(fresh, trials=5, storage=url, heartbeat=1, objective={"epochs": 60}, pruner="none")

    def trials():
        """(number, state, whose) of each, as the database has them."""
        with contextlib.suppress(psycopg.errors.UndefinedTable), psycopg.connect(url) as database:
            return database.execute(
                "select number, state, value_json from trials left join trial_user_attributes using (trial_id) "
                "where key = 'worker' order by number"
            ).fetchall()
        return []

    first = fresh.start("miyagi", "sweep", "simclr")
    kill(first)
    waiting_for(trials)
    second = fresh.start("miyagi", "sweep-worker", "simclr")
    kill(second)
    waiting_for(lambda: {worker for _, _, worker in trials()} >= {str(first.pid), str(second.pid)})
    waiting_for(lambda: any(state == "RUNNING" and worker == str(first.pid) for _, state, worker in trials()))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 0, out
    done = [entry for entry in trials() if entry[1] == "COMPLETE"]
    assert len(done) == 5 and len([entry for entry in trials() if entry[1] == "FAIL"]) == 1
    fresh.run("miyagi", "sweep", "simclr")
    found = rows(fresh)
    assert [row["number"] for row in found] == [str(number) for number in range(5)]
    assert {row["state"] for row in found} == {"complete"} and {row["reproducible"] for row in found} == {"no"}
    assert len([entry for entry in trials() if entry[1] == "COMPLETE"]) == 5  # nothing was run again
    assert postgres.password not in (fresh.root / "runs/simclr/experiment.yaml").read_text()


def test_the_dashboard_opens_on_the_study(fresh, kill):
    import socket
    import urllib.request

    refused = fresh.run("miyagi", "dashboard", check=False)
    assert refused.returncode == 2 and "there is no study in .miyagi/studies; run: dvc repro" in refused.stderr
    tune(fresh, trials=1)
    fresh.run("miyagi", "sweep", "simclr")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kill(fresh.start("miyagi", "dashboard", "simclr", "--port", str(port)))

    def answer():
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies") as page:
            return json.loads(page.read())["study_summaries"]
        return None

    waiting_for(answer)
    (study,) = answer()
    assert study["study_name"] in journal(fresh).name
    listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
    assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening
