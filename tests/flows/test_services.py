"""What takes a rehearsal down; the whole of it is in tests/integration/test_cluster.py."""

import json
import subprocess
import time

import psutil
import pytest

from flows import services
from flows.services import Process, Rehearsal, end, rehearsal
from miyagi.errors import UserError


@pytest.fixture
def tree():
    """A process that has another one, in a session of its own, which outlives a signal to the first."""
    process = subprocess.Popen(["sh", "-c", "setsid sleep 60 & echo; wait"], stdout=subprocess.PIPE)
    process.stdout.readline()
    found = psutil.Process(process.pid)
    deadline = time.monotonic() + 10
    while not found.children() or found.children()[0].name() != "sleep":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield found
    process.kill()
    process.communicate()


def test_a_process_ends_with_all_under_it(tree):
    under = tree.children(recursive=True)
    end(tree, 5)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in [tree, *under])


def test_down_ends_what_state_json_names_and_keeps_the_logs(tmp_path, tree):
    folder = tmp_path / ".miyagi" / "cluster"
    for name in ("logs", "node1", "prefect"):
        (folder / name).mkdir(parents=True)
    (folder / "logs" / "one.log").touch()
    entries = [{"name": "one", "pid": tree.pid, "created": tree.create_time()}]
    entries.append({"name": "of another", "pid": psutil.Process().pid, "created": 1.0})  # a number that was given again
    (folder / "state.json").write_text(json.dumps({"processes": entries, "data": ""}))
    found = rehearsal(tmp_path)
    assert [process.find() for process in found.processes] == [tree, None]
    with pytest.raises(UserError, match="`make cluster-down`"):
        found.up()
    found.down()
    assert not tree.is_running() or tree.status() == psutil.STATUS_ZOMBIE
    assert [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))] == ["logs", "logs/one.log"]
    rehearsal(tmp_path).down()  # nothing is up: nothing to do


def test_one_that_does_not_start_is_told_with_its_log(tmp_path):
    (tmp_path / "logs").mkdir()
    found = Rehearsal(tmp_path, tmp_path)
    found._start("broken", ("sh", "-c", "echo no; exit 1"))
    with pytest.raises(UserError, match=r"broken does not start; see .*broken\.log"):
        found._wait("broken", lambda: False)
    assert (tmp_path / "logs" / "broken.log").read_text() == "no\n"
    assert found.processes[0] == Process("broken", found.processes[0].pid, found.processes[0].created)


def test_a_server_that_is_not_there_does_not_answer():
    assert services.answers(f"http://127.0.0.1:{services.free_port()}/health") is False
