"""`make flow` beside `dvc repro`, and what is left of it when it is ended."""

import signal
import time

import psutil
import pytest
import yaml

from tests.integration.project import BIN, checkout, shrink

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MAKE = ("make", "flow", f"VENV={BIN.parent}", "--assume-old", f"{BIN.parent}/installed")


def locked(project):
    """dvc.lock as it is meant, without the report's page, which says when it was made."""
    found = yaml.safe_load((project.root / "dvc.lock").read_text())
    for out in found["stages"]["report"]["outs"]:
        if out["path"].endswith("report.html"):
            out.pop("md5"), out.pop("size")
    return found


def test_make_flow_gives_the_lock_of_dvc_repro(finished, tmp_path):
    project = checkout(tmp_path / "miyagi")
    project.edit(shrink)
    said = project.run(*MAKE).stdout
    assert f"{len(finished.executed)} stages, {len(finished.executed)} to run" in said
    for stage in finished.executed:
        assert f"{stage}: done after" in said
    assert "Prefect server: " in said and " s to start" in said
    assert locked(project) == locked(finished)
    assert project.run("git", "status", "--porcelain").stdout.split() == ["M", "params.yaml", "??", "dvc.lock"]
    assert project.repro() == set()
    again = project.run(*MAKE).stdout  # nothing is stale: no server is started for it
    assert again.splitlines()[-1] == f"{len(finished.executed)} stages, 0 to run"


def processes(project):
    """Whatever works in the checkout."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(project.root)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_ended_it_leaves_no_process_and_goes_on_later(project, kill):
    project.edit(lambda p: p["experiments"]["simclr"].update(pretrain={"epochs": 200}))
    process = project.start("python", "-m", "flows.pipeline", "pretrain@simclr-0")
    kill(process)
    deadline = time.monotonic() + 150
    while not list((project.root / ".miyagi/train").glob("*/state.pt")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "flows: ended, and every stage with it; what they reached is kept"
    deadline = time.monotonic() + 20
    while processes(project):
        assert time.monotonic() < deadline, processes(project)
        time.sleep(0.1)
    done = project.run("dvc", "repro", "pretrain@simclr-0")
    assert "resuming after epoch" in done.stdout + done.stderr
