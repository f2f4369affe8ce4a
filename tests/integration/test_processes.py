"""`runtime.processes: 2` through the real command line: torchrun's agent, gloo, one writer; killed, resumed, refused."""

import os
import re
import shutil
import signal
import time

import psutil
import pytest
import torch

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FOLDER = "runs/simclr/0"


def shared(params):
    params["runtime"] |= {"processes": 2, "threads": 1}
    params["experiments"]["simclr"]["pretrain"] = {"epochs": 8}


@pytest.fixture
def resolved(project):
    """The small project, its training still to be done by two processes."""
    project.edit(shared)
    project.run("miyagi", "sweep", "simclr")
    shutil.rmtree(project.root / FOLDER)
    return project


def outs(project):
    return {file.name: file.read_bytes() for file in (project.root / FOLDER).iterdir() if file.is_file()}


def epochs(project):
    """Epochs in the newest whole state; 0 where there is none."""
    states = list((project.root / ".miyagi/train").glob("*/state.pt"))
    return max((torch.load(file, weights_only=True)["epoch"] for file in states), default=0)


def workers(process):
    """The launcher's two processes, by rank, once both are there."""
    found = {}
    for child in psutil.Process(process.pid).children():
        rank = child.environ().get("RANK")
        if rank is not None:
            found[int(rank)] = child
    return found


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def gone(children):
    return all(not child.is_running() or child.status() == psutil.STATUS_ZOMBIE for child in children)


def start(project, kill, reached):
    """A training in two processes that has at least `reached` whole epochs behind it."""
    process = project.start("miyagi", "pretrain", "simclr", "0")
    kill(process)
    wait_for(lambda: epochs(project) >= reached or process.poll() is not None)
    assert process.poll() is None, process.stdout.read()
    found = workers(process)
    assert set(found) == {0, 1}
    return process, found


def test_killed_and_resumed_in_two_processes(resolved, kill, tmp_path):
    whole = resolved.run("miyagi", "pretrain", "simclr", "0").stdout
    want = outs(resolved)
    assert {"encoder.safetensors", "head.safetensors", "history.csv", "run.json"} <= want.keys()
    # One of them tells, and it tells each epoch once.
    assert re.findall(r"^simclr-0: epoch (\d)", whole, re.MULTILINE) == [str(epoch) for epoch in range(1, 9)]
    assert len(want["history.csv"].splitlines()) == 9
    shutil.rmtree(resolved.root / FOLDER)

    # One process is killed: all end, nothing is written, what was reached is kept.
    process, found = start(resolved, kill, 1)
    ports = [c.laddr for child in [psutil.Process(process.pid), *found.values()] for c in child.net_connections("inet")
             if c.status == psutil.CONN_LISTEN]  # fmt: skip
    assert {address.ip for address in ports} == {"127.0.0.1"}
    found[1].send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "miyagi: process 1 of 2 ended with signal SIGKILL" in said and "run again to go on" in said
    assert gone(found.values())
    assert not (resolved.root / FOLDER).exists()
    reached = epochs(resolved)
    assert 1 <= reached < 8

    # The launcher is killed with its group, as DVC's and Prefect's are: its processes have other groups, and die too.
    process, found = start(resolved, kill, reached + 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: gone(found.values()), 20)
    reached = epochs(resolved)
    assert reached < 8 and not (resolved.root / FOLDER).exists()

    done = resolved.run("miyagi", "pretrain", "simclr", "0")
    assert done.stderr.count(f"resuming after epoch {reached} of 8") == 1
    assert outs(resolved) == want
    assert list((resolved.root / ".miyagi/train").glob("*/state.pt")) == []

    # A run each in MLflow, with what the first process logged; the other one is not seen.
    import mlflow.tracking

    client = mlflow.tracking.MlflowClient(f"sqlite:///{resolved.root}/.miyagi/mlflow.db")
    experiment = client.get_experiment_by_name("miyagi")
    runs = client.search_runs(
        [experiment.experiment_id],
        "tags.`miyagi.target` = 'simclr-0' and params.`runtime.processes` = '2' and attributes.status = 'FINISHED'",
    )
    assert len(runs) == 2
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) in (8, 8 - reached) for run in runs)


def test_a_mistake_is_told_once(resolved):
    resolved.edit(
        lambda p: p["experiments"]["simclr"].update(
            pretrain={"optimizer": "sgd", "lr": 1e30, "epochs": 1, "warmup_epochs": 0}
        )
    )
    resolved.run("miyagi", "sweep", "simclr")
    done = resolved.run("miyagi", "pretrain", "simclr", "0", check=False)
    assert done.returncode == 2
    assert done.stderr.count("the loss is nan in epoch 1: lower pretrain.lr") == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert not (resolved.root / FOLDER).exists()


def test_a_torchrun_of_ones_own(resolved):
    """The launcher of a cluster: as many processes as were asked for train, any other number is refused."""
    arguments = ("-m", "miyagi.cli", "pretrain", "simclr", "0")
    resolved.edit(lambda p: p["experiments"]["simclr"].update(pretrain={"epochs": 1}))
    resolved.run("miyagi", "sweep", "simclr")
    refused = resolved.run("torchrun", "--standalone", "--nproc-per-node", "1", *arguments, check=False)
    assert refused.returncode != 0
    assert "runtime.processes: 2, but 1 were started" in refused.stderr + refused.stdout
    resolved.run("torchrun", "--standalone", "--nproc-per-node", "2", *arguments)
    assert len(outs(resolved)["history.csv"].splitlines()) == 2
