"""One stage through the real DVC: what it does, and how each failure is told."""

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from flows import stage
from flows.child import Children
from miyagi.errors import UserError

STAGES = {
    "one": {"cmd": "cat raw.txt > one", "deps": ["raw.txt"], "outs": ["one"]},
    "two": {"cmd": "cat one > two; echo once >> count; echo $GIVEN", "deps": ["one"], "outs": ["two"]},
    "mistake": {"cmd": "echo 'miyagi: params.yaml: no' >&2; exit 2"},
    "fails": {"cmd": "echo trouble; exit 1"},
    "sleeps": {"cmd": "sleep 61 & echo $! > pid; wait", "outs": ["slept"]},
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    (tmp_path / "raw.txt").write_text("raw\n")
    return tmp_path


def run(project, name, **options):
    stage.run(Children(), project, name, **options)


def test_a_stage_and_nothing_else_is_run(project):
    (project / "one").write_text("by hand\n")
    run(project, "two", extra={"GIVEN": "a variable"})
    assert (project / "two").read_text() == "by hand\n"
    assert list(yaml.safe_load((project / "dvc.lock").read_text())["stages"]) == ["two"]
    assert "a variable" in stage.log_of(project, "two").read_text()
    run(project, "two")
    assert (project / "count").read_text() == "once\n"
    run(project, "two", force=True)
    assert (project / "count").read_text() == "once\nonce\n"


def test_a_users_mistake_is_told_as_one(project):
    with pytest.raises(UserError, match=r"^mistake: params.yaml: no$"):
        run(project, "mistake")


def test_a_failure_names_its_log(project):
    with pytest.raises(stage.StageFailed, match=r"^fails: .*exited with 1; log: .*fails\.log$") as told:
        run(project, "fails")
    assert "trouble" in Path(str(told.value).rpartition("log: ")[2]).read_text()


def test_one_that_takes_too_long_is_ended_with_all_it_started(project):
    began = time.monotonic()
    with pytest.raises(stage.StageFailed, match=r"^sleeps: not done after 3 s, its meta.timeout in dvc.yaml; log: "):
        run(project, "sleeps", timeout=3)
    assert time.monotonic() - began < 20
    pid = int((project / "pid").read_text())
    assert not psutil.pid_exists(pid)
    # Its locks went with it: DVC says "is busy" as long as their holder is there, dead or not.
    with pytest.raises(stage.StageFailed, match="not done after 3 s"):
        run(project, "sleeps", timeout=3)


def test_alone_with_a_remote(project, tmp_path_factory):
    """A clone of its own: upstream comes from the remote, and results go there; a third one executes nothing."""
    remote = tmp_path_factory.mktemp("remote")
    (project / ".dvc/config").write_text(
        f"[core]\n    analytics = false\n    no_scm = true\n    remote = r\n['remote \"r\"']\n    url = {remote}\n"
    )
    clones = [tmp_path_factory.mktemp("clones") / name for name in ("first", "second", "head")]
    for clone in clones:
        subprocess.run(["cp", "-r", str(project), str(clone)], check=True)
    stage.run_alone(Children(), clones[0], "one")
    stage.run_alone(Children(), clones[1], "two")
    assert (clones[1] / "two").read_text() == "raw\n"
    assert (clones[1] / "count").read_text() == "once\n"
    stage.run_alone(Children(), clones[2], "two")
    assert (clones[2] / "two").read_text() == "raw\n" and not (clones[2] / "count").exists()


def test_its_own_code_comes_first(tmp_path):
    variables = stage.environment(tmp_path)
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path / "ssl")
    assert variables["DO_NOT_TRACK"] == "1" and variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
