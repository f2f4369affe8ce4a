"""Real processes that have children of their own, ended in every way that they can be."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from flows.child import Children, Ended

ROOT = Path(__file__).parents[2]
SLEEPS = ("sh", "-c", "sleep 60 & echo $! > pid; echo started; wait")
"""As DVC does: a shell that starts another process and hands it no signal."""


@pytest.fixture
def place(tmp_path):
    yield tmp_path
    for child in psutil.Process().children(recursive=True):
        child.kill()


def run(place, command, children=None, **options):
    (children or Children()).run(command, cwd=place, env=os.environ, log=place / "logs" / "log", **options)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def grandchild(place):
    wait_for(lambda: (place / "pid").is_file() and (place / "pid").read_text().strip())
    return int((place / "pid").read_text())


def gone(pid):
    """Killed and waited for: a zombie would still be there."""
    return not psutil.pid_exists(pid)


def test_what_it_says_is_kept(place):
    run(place, ("sh", "-c", "echo one; echo two >&2"))
    run(place, ("sh", "-c", "echo three"))
    assert (place / "logs" / "log").read_text() == "one\ntwo\nthree\n"


def test_its_exit_code_is_told(place):
    with pytest.raises(subprocess.CalledProcessError) as told:
        run(place, ("sh", "-c", "exit 7"))
    assert told.value.returncode == 7


def test_one_that_is_killed_is_told(place):
    with pytest.raises(subprocess.CalledProcessError) as told:
        run(place, ("sh", "-c", "kill -9 $$"))
    assert told.value.returncode == 128 + 9


def test_nothing_is_left_after_a_timeout(place):
    with pytest.raises(subprocess.TimeoutExpired):
        run(place, SLEEPS, timeout=0.5)
    pid = grandchild(place)
    wait_for(lambda: gone(pid))


def test_nothing_is_left_after_a_good_end(place):
    run(place, ("sh", "-c", "sleep 60 & echo $! > pid"))
    pid = grandchild(place)
    wait_for(lambda: gone(pid))


def test_one_that_has_left_its_session_is_found(place):
    run(place, ("sh", "-c", "setsid sh -c 'echo $$ > pid; sleep 60' & while ! [ -s pid ]; do sleep 0.05; done"))
    assert gone(grandchild(place))


def test_nothing_is_left_when_all_are_ended(place):
    children, told = Children(), []

    def work():
        with pytest.raises(Ended):
            run(place, SLEEPS, children)
        told.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    pid = grandchild(place)
    children.end()
    thread.join(20)
    assert told == [True]
    wait_for(lambda: gone(pid))
    with pytest.raises(Ended):
        run(place, ("true",), children)


def test_nothing_is_left_when_the_runner_is_killed(place):
    code = (
        "import os, pathlib; from flows.child import Children; "
        f"Children().run({SLEEPS!r}, cwd=pathlib.Path({str(place)!r}), env=os.environ, log=pathlib.Path({str(place / 'log')!r}))"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'ssl'}"}
    )
    pid = grandchild(place)
    assert not gone(pid)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    wait_for(lambda: gone(pid))
