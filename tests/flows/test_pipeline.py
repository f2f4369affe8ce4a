"""The command line as far as it needs no server: the plan, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows import node, pipeline
from miyagi.errors import UserError
from tests.flows.test_checkout import commit, git

STAGES = {
    "stages": {
        "train": {
            "foreach": {"a": 1, "b": 2},
            "do": {
                "cmd": "cp raw.txt ${key}",
                "deps": ["raw.txt"],
                "outs": ["${key}"],
                "meta": {"pool": "gpu", "retries": 1},
            },
        },
        "report": {"cmd": "cat a b > report", "deps": ["a", "b"], "outs": ["report"]},
    }
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "-b", "main", ".")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    (tmp_path / "raw.txt").write_text("raw\n")
    commit(tmp_path, ".dvc/config", "[core]\n    analytics = false\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


def said(capsys, *arguments):
    code = pipeline.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_a_dry_run_prints_the_plan_and_runs_nothing(project, capsys):
    code, out, err = said(capsys, "--dry-run")
    assert (code, err) == (0, [])
    assert [line.split() for line in out[:-1]] == [
        ["train@a", "gpu", "never", "run"], ["train@b", "gpu", "never", "run"], ["report", "cpu", "never", "run"],
    ]  # fmt: skip
    assert out[-1] == "3 stages, 3 to run"
    assert not (project / "a").exists()
    assert said(capsys, "--dry-run", "train@b")[1][-1] == "1 stages, 1 to run"


def test_an_unknown_target(project, capsys):
    assert said(capsys, "reprot") == (2, [], ["flows: dvc.yaml has no stage 'reprot'; did you mean 'report'?"])


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda root: (root / "raw.txt").write_text("x"),
            "the working tree has changes that no worker can see: commit and push",
        ),
        (lambda root: None, "is on no git remote: `git push` first, workers clone it from there"),
    ],
)
def test_what_a_cluster_cannot_run_is_refused_in_a_line(project, capsys, prepare, message):
    prepare(project)
    code, out, err = said(capsys, "--cluster")
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]


def test_without_a_server_there_is_no_cluster(project, capsys, tmp_path_factory):
    bare = tmp_path_factory.mktemp("bare")
    git(bare, "init", "-q", "--bare")
    commit(project, ".dvc/config", "[core]\n    remote = r\n['remote \"r\"']\n    url = /tmp/nowhere\n")
    git(project, "remote", "add", "origin", str(bare))
    git(project, "push", "-q", "origin", "main")
    code, _, err = said(capsys, "--cluster")
    assert code == 2 and err == [
        "flows: $PREFECT_API_URL names no server; `make cluster-up` starts a small one: docs/cluster.md"
    ]


def test_a_second_pipeline_of_a_checkout_is_refused(tmp_path):
    with (
        pipeline._alone(tmp_path),
        pytest.raises(UserError, match="another pipeline runs in this checkout"),
        pipeline._alone(tmp_path),
    ):
        pass
    with pipeline._alone(tmp_path):
        pass


def test_two_trainings_see_different_gpus():
    devices = pipeline._Devices("012")
    with devices.taken(2) as first, devices.taken(1) as second:
        assert {first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]} == {"0,1", "2"}
        with devices.taken(1) as shared:  # where a user asked for more slots than there are GPUs
            assert shared["CUDA_VISIBLE_DEVICES"] == "0"
    with devices.taken(3) as all_of_them:
        assert all_of_them["CUDA_VISIBLE_DEVICES"] == "0,1,2"
    with pipeline._Devices("").taken(1) as none:
        assert none == {}


def test_slots_of_a_node(monkeypatch, tmp_path):
    monkeypatch.delenv("MIYAGI_GPU_SLOTS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert node.gpus() == ["4", "5"] and node.slots(3) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert node.gpus() == [] and node.slots(3) == 3
    monkeypatch.setenv("MIYAGI_GPU_SLOTS", "2")
    assert node.slots(1) == 2
    monkeypatch.setenv("MIYAGI_GPU_SLOTS", "many")
    with pytest.raises(UserError, match=r"^\$MIYAGI_GPU_SLOTS is 'many'; give the number"):
        node.slots(1)


def test_trainings_are_cores_over_threads(monkeypatch, tmp_path):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)))
    for threads, carried in ((1, 6), (2, 3), (4, 1), (8, 1)):
        (tmp_path / "params.yaml").write_text(f"runtime: {{threads: {threads}}}\n")
        assert node.trainings(tmp_path) == carried


def test_neither_torch_nor_prefect_is_needed_to_plan(project):
    root = Path(__file__).parents[2]
    code = "import sys; from flows import pipeline; pipeline.main(['--dry-run']); print({'torch', 'prefect'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": f"{root}:{root / 'ssl'}", "PATH": "/usr/bin:/bin"},
                          cwd=project, capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "set()"
