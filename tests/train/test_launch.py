"""What each process and its launcher know of one another; tests/integration/test_processes.py starts real trainings."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from miyagi.errors import UserError
from miyagi.train import launch


def test_not_inside():
    assert not launch.inside()
    assert launch.rank() == 0


def test_inside(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "1")
    assert launch.inside()
    assert launch.rank() == 1


def test_an_error_is_left_for_the_launcher(monkeypatch, tmp_path):
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    with pytest.raises(UserError, match="mend it"), launch.reported():
        raise UserError("mend it")
    assert not file.exists()  # alone there is no launcher
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(UserError, match="mend it"), launch.reported():
        raise UserError("mend it")
    assert json.loads(file.read_text())["message"]["message"] == "UserError: mend it"


CHILD = """
import time
from miyagi.train.launch import die_with_the_launcher
die_with_the_launcher()
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import os, signal, subprocess, sys
os.environ["MIYAGI_LAUNCHER"] = str(os.getpid())
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True, start_new_session=True)
assert child.stdout.readline() == "ready\\n"
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_process_dies_with_its_launcher():
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)
    # And if the launcher was dead before: a process id that is not the parent's.
    env = os.environ | {"MIYAGI_LAUNCHER": "1"}
    late = subprocess.run([sys.executable, "-c", CHILD], env=env, capture_output=True, check=False, timeout=60)
    assert late.returncode == -signal.SIGTERM
