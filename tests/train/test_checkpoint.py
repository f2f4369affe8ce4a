"""State that survives a kill, and the lock that keeps two trainings apart."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from miyagi.errors import UserError
from miyagi.train import checkpoint


class Evil:
    """Unpickled without care, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_round_trip(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = {
        "epoch": 3,
        "history": [{"epoch": 1, "loss": 0.1 + 0.2}],
        "method": model.state_dict(),
        "optimizer": optimiser.state_dict(),
    }
    checkpoint.save(tmp_path, state)
    found = checkpoint.load(tmp_path)
    assert (found["epoch"], found["history"]) == (3, [{"epoch": 1, "loss": 0.1 + 0.2}])
    assert all(torch.equal(found["method"][name], value) for name, value in model.state_dict().items())
    moments = found["optimizer"]["state"]
    assert all(torch.equal(moments[i]["exp_avg"], s["exp_avg"]) for i, s in optimiser.state_dict()["state"].items())


def test_no_state(tmp_path):
    assert checkpoint.load(tmp_path) is None


def test_code_in_a_state_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "mark"
    torch.save({"epoch": 1, "method": Evil(mark)}, tmp_path / checkpoint.STATE)
    with pytest.raises(UserError, match="cannot resume from"):
        checkpoint.load(tmp_path)
    assert not mark.exists()
    torch.load(tmp_path / checkpoint.STATE, weights_only=False)  # it would have run
    assert mark.exists()


def test_a_save_that_fails_leaves_the_last_state(tmp_path):
    checkpoint.save(tmp_path, {"epoch": 1, "x": torch.ones(1000)})
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(tmp_path, {"epoch": 2, "x": torch.zeros(1000), "y": lambda: None})
    assert checkpoint.load(tmp_path)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.STATE]


HOLDER = """
import sys, torch
from pathlib import Path
from miyagi.train import checkpoint
with checkpoint.scratch(Path(sys.argv[1]), "f00") as folder:
    n = 0
    while True:
        checkpoint.save(folder, {"epoch": n, "x": torch.full((500_000,), float(n))})
        n += 1
        if n == 2: print("held", flush=True)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_second_process_waits_and_then_refuses_until_the_first_is_killed(tmp_path, holder, monkeypatch, capsys):
    monkeypatch.setenv("MIYAGI_PATIENCE", "0.7")
    start = time.monotonic()
    with (
        pytest.raises(UserError, match="another process is training f00; wait for it"),
        checkpoint.scratch(tmp_path, "f00"),
    ):
        pytest.fail("two have the lock")
    assert time.monotonic() - start >= 0.7
    assert capsys.readouterr().err == "another process is training f00; waiting for it\n"
    with checkpoint.scratch(tmp_path, "f11", patience=0):
        pass  # another training is nobody's business

    def whole():
        state = checkpoint.load(tmp_path / "f00")
        assert (state["x"] == state["epoch"]).all() and len(state["x"]) == 500_000
        return state["epoch"]

    seen = [whole() for _ in range(20)]  # read while it is written
    assert seen == sorted(seen) and seen[-1] > seen[0]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with checkpoint.scratch(tmp_path, "f00", patience=0) as folder:
        assert folder == tmp_path / "f00"
        assert whole() >= seen[-1]


def test_waits_until_the_first_has_ended(tmp_path, capsys):
    entered, leave = threading.Event(), threading.Event()

    def first():
        with checkpoint.scratch(tmp_path, "f00"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    threading.Timer(0.4, leave.set).start()
    with checkpoint.scratch(tmp_path, "f00", patience=10) as folder:
        assert leave.is_set()
        assert folder.is_dir()  # the first one deleted its own
    thread.join()
    assert capsys.readouterr().err.count("waiting for it") == 1


def test_the_folder_goes_at_the_end_and_stays_on_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="broken"), checkpoint.scratch(tmp_path, "f00", patience=0) as folder:
        checkpoint.save(folder, {"epoch": 1})
        raise RuntimeError("broken")
    assert checkpoint.load(tmp_path / "f00") == {"epoch": 1}
    with checkpoint.scratch(tmp_path, "f00", patience=0) as folder:  # the lock is free again
        assert checkpoint.load(folder) == {"epoch": 1}
    assert not folder.exists()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "train").write_text("in the way")
    with pytest.raises(UserError, match="cannot write .*train"), checkpoint.scratch(tmp_path / "train", "f00"):
        pytest.fail("there is no folder")
