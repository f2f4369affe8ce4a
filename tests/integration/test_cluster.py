"""A whole cluster on this machine: Postgres, MLflow, Prefect, real workers with clones, caches and homes of their own."""

import time

import psutil
import pytest

from flows.services import Rehearsal
from tests.integration.project import checkout, shrink

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def commit(project, message):
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qm", message)
    project.run("git", "push", "-q", "origin", "HEAD:main")
    return project.run("git", "rev-parse", "HEAD").stdout.strip()


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The checkout of a user: data prepared and pushed, the revision pushed, a cluster up."""
    place = tmp_path_factory.mktemp("cluster")
    project = checkout(place / "head")
    project.edit(shrink)
    project.run("git", "init", "-q", "--bare", str(place / "bare.git"))
    project.run("git", "remote", "add", "origin", str(place / "bare.git"))
    project.run("dvc", "remote", "add", "--default", "shared", str(place / "remote"))
    project.repro("prepare@digits")
    project.run("dvc", "push", "--run-cache", "--quiet")
    commit(project, "data")
    cluster = Rehearsal(place / "rehearsal", project.root)
    project.env |= cluster.up()
    project.cluster = cluster
    yield project
    left = [process.find() for process in cluster.processes]
    under = [*left, *(child for process in left if process for child in process.children(recursive=True))]
    cluster.down()
    assert [process for process in under if process and process.is_running()] == []
    assert sorted(path.name for path in cluster.folder.iterdir()) == ["logs"]
    assert not psutil.Process().children()


def runs(project):
    """Flow runs as the server's API tells them: (name, final state, deployment's pool)."""
    import os

    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    assert os.environ.get("PREFECT_API_URL") is None
    with temporary_settings({PREFECT_API_URL: project.env["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        return [(run.name, run.state.name, run.work_pool_name) for run in client.read_flow_runs()]


def test_a_pipeline_on_two_workers_and_nothing_to_execute_on_the_head(head):
    from mlflow.tracking import MlflowClient

    revision = head.run("git", "rev-parse", "HEAD").stdout.strip()
    said = head.run("python", "-m", "flows.pipeline", "--cluster", "pretrain@simclr-0").stdout
    assert sorted(runs(head)) == sorted([
        (revision, "Completed", "cpu"),
        ("sweep@simclr", "Completed", "gpu"),
        ("pretrain@simclr-0", "Completed", "gpu"),
    ])  # fmt: skip
    assert "Running stage" not in said
    assert "Stage 'pretrain@simclr-0' is cached - skipping run, checking out outputs" in said
    assert (head.root / "runs/simclr/0/encoder.safetensors").is_file()
    assert head.repro("pretrain@simclr-0") == set()
    # Each worker has worked in its own clone, and the training is in the MLflow server's Postgres.
    clones = {path.parent.parent.parent.name for path in head.cluster.folder.glob("node*/*/clones/*") if path.is_dir()}
    assert clones == {"node1", "node2"}
    client = MlflowClient(head.env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("miyagi")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`miyagi.target` = 'simclr-0'")
    assert run.info.status == "FINISHED" and len(client.get_metric_history(run.info.run_id, "loss")) == 2


def test_a_killed_workers_stage_is_run_elsewhere(head):
    head.edit(lambda p: p["experiments"]["simclr"].update(pretrain={"epochs": 60}))
    commit(head, "longer")
    head.cluster.worker("gpu", "node3")()
    pipeline = head.start("python", "-m", "flows.pipeline", "--cluster", "pretrain@simclr-0")
    try:
        states = None
        while not states:
            assert pipeline.poll() is None, pipeline.communicate()[0]
            time.sleep(0.05)
            states = list(head.cluster.folder.glob("node[23]/*/scratch/train/*/state.pt"))
        node = states[0].relative_to(head.cluster.folder).parts[0]
        worker = next(p.find() for p in head.cluster.processes if p.name == f"worker-{node}")
        dying = [*worker.children(recursive=True), worker]
        for process in dying:  # the machine is gone, not a process that could tell of it
            process.suspend()
        for process in dying:
            process.kill()
        said, _ = pipeline.communicate(timeout=200)
    finally:
        pipeline.kill()
        pipeline.wait()
    assert pipeline.returncode == 0, said
    assert "Running stage" not in said
    states = sorted(state for name, state, _ in runs(head) if name == "pretrain@simclr-0")
    assert states == ["Completed", "Completed", "Crashed"] or states == ["Completed", "Crashed"]
    other = {"node2": "node3", "node3": "node2"}[node]
    log = next(head.cluster.folder.glob(f"{other}/*/scratch/flows/pretrain@simclr-0.log")).read_text()
    assert "simclr-0: epoch 60" in log
    assert (head.root / "runs/simclr/0/history.csv").read_text().count("\n") == 61
