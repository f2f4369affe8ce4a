"""A killed training goes on where it was, and nobody trains the same thing twice at once."""

import os
import signal
import time

import pytest
import yaml

pytestmark = pytest.mark.integration


EPOCHS = 80
"""More seconds than a second `dvc repro` takes to start."""


def longer(params):
    params["experiments"]["simclr"]["pretrain"] = {"epochs": EPOCHS}


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def trained(project):
    return project.outs["runs/simclr/0/encoder.safetensors"], project.outs["runs/simclr/0/history.csv"]


def epochs(project):
    """Epochs in the newest whole state; 0 where there is none."""
    import torch

    states = list((project.root / ".miyagi/train").glob("*/state.pt"))
    return max((torch.load(file, weights_only=True)["epoch"] for file in states), default=0)


@pytest.fixture(scope="module")
def uninterrupted(finished, tmp_path_factory):
    import shutil

    from tests.integration.project import Project

    root = tmp_path_factory.mktemp("whole") / "miyagi"
    shutil.copytree(finished.root, root, symlinks=True)
    project = Project(root)
    project.edit(longer)
    project.repro("pretrain@simclr-0")
    return trained(project)


def test_killed_and_resumed_is_bit_identical(project, uninterrupted, kill):
    project.edit(longer)
    process = project.start("dvc", "repro", "pretrain@simclr-0")
    kill(process)
    wait_for(lambda: epochs(project) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = epochs(project)
    assert 2 <= reached < EPOCHS
    assert not (project.root / "runs/simclr/0/encoder.safetensors").exists()
    done = project.run("dvc", "repro", "pretrain@simclr-0")
    assert f"resuming after epoch {reached} of {EPOCHS}" in done.stdout + done.stderr
    assert trained(project) == uninterrupted
    assert list((project.root / ".miyagi/train").glob("*/state.pt")) == []


def test_a_second_run_waits_for_a_living_orphan(project, uninterrupted, kill):
    """`kill -9` of dvc alone leaves its child training; the next run waits and takes what the child has made."""
    project.edit(longer)
    process = project.start("dvc", "repro", "pretrain@simclr-0")
    kill(process)
    wait_for(lambda: epochs(project) >= 1)
    os.kill(process.pid, signal.SIGKILL)  # dvc itself, not its group
    process.wait()
    done = project.run("dvc", "repro", "pretrain@simclr-0")
    assert "another process is training" in done.stdout + done.stderr
    assert "resuming" not in done.stdout + done.stderr
    assert trained(project) == uninterrupted


def test_no_resume_under_other_settings(project, kill):
    project.edit(longer)
    process = project.start("dvc", "repro", "pretrain@simclr-0")
    kill(process)
    wait_for(lambda: epochs(project) >= 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    project.edit(lambda p: p["experiments"]["simclr"].update(temperature=0.9, pretrain={"epochs": 2}))
    done = project.run("dvc", "repro", "pretrain@simclr-0")
    assert "resuming" not in done.stdout + done.stderr
    described = yaml.safe_load((project.root / "runs/simclr/experiment.yaml").read_text())
    assert described["settings"]["temperature"] == 0.9
