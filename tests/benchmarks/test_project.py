"""The project that whole runs are timed in."""

import subprocess

import yaml

from benchmarks.project import Project, shipped
from benchmarks.settings import ROOT


def test_the_copy_has_whatever_of_git_the_dag_reads(tmp_path):
    Project(tmp_path, shipped())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    read = {dep for stage in stages.values() for dep in stage.get("do", stage)["deps"] if "$" not in dep}
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    kept = {dep for dep in read if any(f"{file}/".startswith(f"{dep}/") for file in done.stdout.splitlines())}
    assert {"studies/verdicts.json", "ssl/miyagi/report"} <= kept
    assert {dep for dep in kept if not (tmp_path / dep).exists()} == set()
