"""docs/cluster.md, run top to bottom: one machine, then a rehearsal with a whole pipeline on two workers' clones."""

import os
import re

import pytest
import yaml

from tests.integration.project import checkout, commands, made, processes, shrink
from tests.integration.test_cluster import runs

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ONE_MACHINE, REMOTES, REHEARSAL = slice(0, 3), slice(3, 5), slice(5, None)


@pytest.fixture
def project(tmp_path):
    """A checkout of its own, shrunk and committed, with whose hand git commits."""
    project = checkout(tmp_path / "miyagi")
    project.edit(shrink)
    for key, value in (("user.name", "t"), ("user.email", "t@t.invalid")):
        project.run("git", "config", key, value)
    project.run("git", "commit", "-qam", "small")
    return project


def test_one_machine(project):
    flow, dry, some = (made(command) for command in commands("docs/cluster.md")[ONE_MACHINE])
    assert "run-stage" not in project.run("sh", "-c", dry).stdout
    assert not (project.root / "dvc.lock").exists()
    said = project.run("sh", "-c", flow).stdout
    assert re.search(r"^report: done after \d+\.\d s", said, re.MULTILINE)
    assert project.run("sh", "-c", some).stdout.splitlines()[-1].endswith(" 0 to run")


def test_a_rehearsal(project):
    up, export, pipeline, down = commands("docs/cluster.md")[REHEARSAL]
    assert export == "export PREFECT_API_URL=..."
    for command in commands("docs/cluster.md")[REMOTES]:
        project.run("sh", "-c", command)
    printed = project.run("sh", "-c", made(up)).stdout
    try:
        project.env |= dict(re.findall(r"^export (\w+)='(.*)'$", printed, re.MULTILINE))
        assert set(re.findall(r"//(?:\w+@)?([\w.]+):\d", printed)) == {"127.0.0.1"}
        said = project.run("sh", "-c", pipeline).stdout
        assert "Running stage" not in said
        planned = project.run("dvc", "status").stdout
        assert planned.strip() == "Data and pipelines are up to date."
        assert project.repro("--pull") == set()
        ran = {name: (state, pool) for name, state, pool in runs(project)}
        stages = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]
        assert {state for state, _ in ran.values()} == {"Completed"} and set(stages) < set(ran)
        trained = {name for name, (_, pool) in ran.items() if pool == "gpu"}
        assert {"pretrain@simclr-0", "sweep@simclr"} <= trained and "prepare@digits" not in trained
        clones = (project.root / ".miyagi/cluster").glob("node*/*/clones/*")
        assert {path.parents[2].name for path in clones if path.is_dir()} == {"node1", "node2"}
        assert (project.root / "reports/report.html").stat().st_size > 100_000
    finally:
        project.run("sh", "-c", made(down))
    assert processes(project.root) == []
    assert os.listdir(project.root / ".miyagi/cluster") == ["logs"]
