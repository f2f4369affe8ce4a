"""`make flow` beside `dvc repro`, and what is left of it when it is ended."""

import os
import re
import signal
import time

import pytest
import yaml

from tests.integration.project import checkout, made, processes, shrink

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def locked(project):
    """dvc.lock as it is meant, without the report's page, which says when it was made."""
    found = yaml.safe_load((project.root / "dvc.lock").read_text())
    for out in found["stages"]["report"]["outs"]:
        if out["path"].endswith("report.html"):
            out.pop("md5"), out.pop("size")
    return found


def test_make_flow_gives_the_lock_of_dvc_repro(tmp_path):
    by_dvc, by_flow = checkout(tmp_path / "dvc" / "miyagi"), checkout(tmp_path / "flow" / "miyagi")
    by_dvc.edit(shrink)
    by_flow.edit(shrink)
    stages = by_dvc.repro()
    assert len(stages) == 13
    said = by_flow.run("sh", "-c", made("make flow")).stdout
    assert "13 stages, 13 to run" in said and re.search(r"^Prefect server: \d+\.\d s to start$", said, re.MULTILINE)
    assert set(re.findall(r"^(\S+): done after \d+\.\d s \(\d+ of 13\)$", said, re.MULTILINE)) == stages
    print(said)
    assert locked(by_flow) == locked(by_dvc)
    assert by_flow.run("git", "status", "--porcelain").stdout.split() == ["M", "params.yaml", "??", "dvc.lock"]
    assert by_flow.repro() == set()
    again = by_flow.run("sh", "-c", made("make flow")).stdout  # nothing is stale: no server is started for it
    assert again.splitlines()[-1] == "13 stages, 0 to run"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ended_it_leaves_no_process_and_goes_on_later(tmp_path, kill, how):
    """Ctrl-C and `kill` of the group, which reach the server as well."""
    project = checkout(tmp_path / "miyagi")

    def long(params):
        shrink(params)
        params["experiments"]["simclr"]["pretrain"] = {"epochs": 200}

    project.edit(long)
    process = project.start("python", "-m", "flows.pipeline", "pretrain@simclr-0")
    kill(process)
    deadline = time.monotonic() + 150
    while not list((project.root / ".miyagi/train").glob("*/state.pt")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, how)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "flows: ended, and every stage with it; what they reached is kept"
    deadline = time.monotonic() + 20
    while processes(project.root):
        assert time.monotonic() < deadline, processes(project.root)
        time.sleep(0.1)
    done = project.run("dvc", "repro", "pretrain@simclr-0")
    assert "resuming after epoch" in done.stdout + done.stderr
