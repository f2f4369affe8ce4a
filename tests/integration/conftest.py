"""A small real project: the shipped dvc.yaml and code, params.yaml cut down, `dvc repro` run once."""

import contextlib
import os
import shutil
import signal

import pytest

from tests.integration.project import Project, checkout, shrink


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small project after its first `dvc repro`; read it, do not change it."""
    project = checkout(tmp_path_factory.mktemp("project") / "miyagi")
    project.edit(shrink)
    project.executed = project.repro()
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project to do anything to."""
    shutil.copytree(finished.root, tmp_path / "miyagi", symlinks=True)
    return Project(tmp_path / "miyagi")


@pytest.fixture
def kill():
    """Ends what a test started, whatever happens: kill(process)."""
    started = []
    yield started.append
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
