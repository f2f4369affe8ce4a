"""A whole cluster on this machine: Postgres, MLflow, Prefect, real workers with clones, caches and homes of their own."""

import csv
import os
import re
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from flows.services import Rehearsal
from tests.integration.project import checkout, processes, shrink

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


@contextmanager
def server(project):
    """A client of the rehearsal's Prefect."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    assert os.environ.get("PREFECT_API_URL") is None
    with temporary_settings({PREFECT_API_URL: project.env["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        yield client


def runs(project):
    """Flow runs as the server's API tells them: (name, final state, deployment's pool)."""
    with server(project) as client:
        return [(run.name, run.state.name, run.work_pool_name) for run in client.read_flow_runs()]


def states(project):
    """What the nodes' trainings have kept so far."""
    return set(project.cluster.folder.glob("node*/*/scratch/train/*/state.pt"))


def start_training(project, kill, epochs):
    """Commit a training of another length and start its pipeline: the process, and a state that it has kept."""
    before = states(project)
    project.edit(lambda p: p["experiments"]["simclr"].update(pretrain={"epochs": epochs}))
    commit(project, f"{epochs} epochs")
    pipeline = project.start("python", "-m", "flows.pipeline", "--cluster", "pretrain@simclr-0")
    kill(pipeline)
    deadline = time.monotonic() + 120
    while not (new := states(project) - before):
        assert pipeline.poll() is None and time.monotonic() < deadline, pipeline.communicate()[0]
        time.sleep(0.05)
    return pipeline, new.pop()


def working(project):
    """Whatever works in a node's clone."""
    return processes(project.cluster.folder, "/clones/")


@contextmanager
def without(project, *nodes):
    """The cluster while these nodes' workers, of those that it has, are away."""
    names = {f"worker-{node}" for node in nodes} & {process.name for process in project.cluster.processes}
    for name in names:
        project.cluster.stop(name)
    try:
        yield
    finally:
        for name in names:
            project.cluster.again(name)


def trained(project):
    """How often the nodes have run the training, by their logs."""
    logs = project.cluster.folder.glob("node*/*/scratch/flows/pretrain@simclr-0.log")
    return sum(log.read_text().count("Running stage 'pretrain@simclr-0'") for log in logs)


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


def test_a_killed_workers_stage_is_run_elsewhere(head, kill):
    head.cluster.worker("gpu", "node3")()
    pipeline, state = start_training(head, kill, 60)
    node = state.relative_to(head.cluster.folder).parts[0]
    worker = next(p.find() for p in head.cluster.processes if p.name == f"worker-{node}")
    dying = [*worker.children(recursive=True), worker]
    for process in dying:  # the machine is gone, not a process that could tell of it
        process.suspend()
    for process in dying:
        process.kill()
    said, _ = pipeline.communicate(timeout=200)
    assert pipeline.returncode == 0, said
    assert "Running stage" not in said
    ends = sorted(state for name, state, _ in runs(head) if name == "pretrain@simclr-0")
    assert ends == ["Completed", "Completed", "Crashed"] or ends == ["Completed", "Crashed"]
    other = {"node2": "node3", "node3": "node2"}[node]
    log = next(head.cluster.folder.glob(f"{other}/*/scratch/flows/pretrain@simclr-0.log")).read_text()
    assert "simclr-0: epoch 60" in log
    assert (head.root / "runs/simclr/0/history.csv").read_text().count("\n") == 61
    head.cluster.stop(f"worker-{node}")
    head.cluster.again(f"worker-{node}")


def test_a_killed_training_goes_on_and_gives_the_same_bytes(head, kill):
    before = trained(head)
    pipeline, _ = start_training(head, kill, 61)
    (training,) = (p for p in working(head) if p.cmdline()[-3:] == ["pretrain", "simclr", "0"])
    training.kill()
    said, _ = pipeline.communicate(timeout=120)
    assert pipeline.returncode == 0, said
    assert trained(head) == before + 2  # again on either node, from its last epoch or from the start
    given = head.outs
    assert head.repro("--force", "--single-item", "pretrain@simclr-0") == {"pretrain@simclr-0"}
    assert head.outs == given


def test_cancelled_as_in_the_ui_leaves_no_process(head, kill):
    from prefect.states import Cancelling

    pipeline, state = start_training(head, kill, 400)
    revision = head.run("git", "rev-parse", "HEAD").stdout.strip()
    with server(head) as client:
        (run,) = (run for run in client.read_flow_runs() if run.name == revision)
        client.set_flow_run_state(run.id, Cancelling())
    said, _ = pipeline.communicate(timeout=120)
    assert pipeline.returncode == 2 and f"flows: pipeline {revision[:12]}: " in said, said
    deadline = time.monotonic() + 60
    while working(head) or any(state in ("Running", "Cancelling") for _, state, _ in runs(head)):
        assert time.monotonic() < deadline, (working(head), runs(head))
        time.sleep(0.5)
    assert sorted(state for _, state, _ in runs(head)).count("Cancelled") == 2
    assert state.is_file()  # what it reached is kept


def test_servers_that_restart_under_a_training_do_not_harm_it(head, kill):
    """Postgres below all, then MLflow: the pipeline ends well, and the tracker has every epoch."""
    from mlflow.tracking import MlflowClient

    pipeline, _ = start_training(head, kill, 200)
    for name in ("postgres", "mlflow"):
        head.cluster.stop(name)
        time.sleep(3)
        head.cluster.again(name)
    said, _ = pipeline.communicate(timeout=200)
    assert pipeline.returncode == 0, said
    assert (head.root / "runs/simclr/0/history.csv").read_text().count("\n") == 201
    client = MlflowClient(head.env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("miyagi")
    run = client.search_runs([experiment.experiment_id], "tags.`miyagi.target` = 'simclr-0'")[0]
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 201))


def test_what_a_tracker_that_was_down_has_missed_is_sent_by_the_next_stage_on_the_node(head):
    from mlflow.tracking import MlflowClient

    def train(epochs):
        head.edit(lambda p: p["experiments"]["simclr"].update(pretrain={"epochs": epochs}))
        commit(head, f"{epochs} epochs")
        head.run("python", "-m", "flows.pipeline", "--cluster", "pretrain@simclr-0")

    with without(head, "node3"):
        head.cluster.stop("mlflow")
        train(3)
        head.cluster.again("mlflow")
        train(4)
    client = MlflowClient(head.env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("miyagi")
    found = client.search_runs([experiment.experiment_id], "tags.`miyagi.target` = 'simclr-0'")
    assert {3, 4} <= {len(client.get_metric_history(run.info.run_id, "loss")) for run in found}


def test_a_remote_that_cannot_be_reached_loses_nothing(head, kill):
    remote = Path(head.run("dvc", "remote", "list").stdout.split()[1])
    away = remote.with_name("away")
    pipeline, _ = start_training(head, kill, 20)
    remote.rename(away)  # a share that is no longer mounted: what is there instead is no folder
    remote.touch()
    said, _ = pipeline.communicate(timeout=200)
    assert pipeline.returncode == 2 and "pretrain@simclr-0" in said, said
    before = trained(head)
    remote.unlink()
    away.rename(remote)
    said = head.run("python", "-m", "flows.pipeline", "--cluster", "pretrain@simclr-0").stdout
    assert "Running stage" not in said
    assert (head.root / "runs/simclr/0/history.csv").read_text().count("\n") == 21
    assert trained(head) <= before + 1  # a node has it in its cache, and the other may get the stage


def test_two_pipelines_of_a_revision_train_once(head, kill, tmp_path):
    second = type(head)(tmp_path / "second")
    origin = head.run("git", "remote", "get-url", "origin").stdout.strip()
    head.run("git", "clone", "-q", "--branch", "main", origin, str(second.root))
    second.env = {**head.env, "PYTHONPATH": second.env["PYTHONPATH"]}
    before = trained(head)
    pipeline, _ = start_training(head, kill, 62)
    second.run("git", "pull", "-q")
    said = second.run("python", "-m", "flows.pipeline", "--cluster", "pretrain@simclr-0").stdout
    assert "Running stage" not in said
    said, _ = pipeline.communicate(timeout=120)
    assert pipeline.returncode == 0, said
    assert trained(head) == before + 1
    assert {path: md5 for path, md5 in head.outs.items() if "simclr" in path} == {
        path: md5 for path, md5 in second.outs.items() if "simclr" in path
    }


def test_a_full_disk_on_a_worker_is_told_and_the_stage_goes_on_later(head, kill):
    node = head.cluster.folder / "node9"
    node.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", node], check=False).returncode:
        pytest.skip("a disk of its own size takes root")
    try:
        with without(head, "node2", "node3"):
            head.cluster.worker("gpu", "node9")()
            pipeline, state = start_training(head, kill, 400)
            filler = node / "filler"
            subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], check=False, capture_output=True)
            said, _ = pipeline.communicate(timeout=120)
            assert pipeline.returncode == 2 and re.search(r"cannot write .*state\.pt: .*; free some space", said), said
            filler.unlink()
            assert state.is_file()
            said = head.run("python", "-m", "flows.pipeline", "--cluster", "pretrain@simclr-0").stdout
            assert "Running stage" not in said
            log = next(node.glob("*/scratch/flows/pretrain@simclr-0.log")).read_text()
            assert re.search(r"resuming after epoch [1-9]", log)
            assert (head.root / "runs/simclr/0/history.csv").read_text().count("\n") == 401
    finally:
        head.cluster.stop("worker-node9")
        subprocess.run(["umount", node], check=True)


def test_a_further_worker_joins_a_sweep(head):
    """By the page's own command: both run trials of the study in the cluster's Postgres, and each trial is run once."""
    import psycopg

    sweep = {
        "trials": 6, "space": {"temperature": {"low": 0.05, "high": 1.0, "log": True}}, "pruner": "none",
        "objective": {"epochs": 60}, "fresh_seeds": 1, "storage": head.cluster.storage,
    }  # fmt: skip
    head.edit(lambda p: p["experiments"]["simclr"].update(sweep=sweep))
    revision = commit(head, "a sweep")
    head.cluster.worker("gpu", "node4")()
    address = head.cluster.storage.replace("//miyagi@", f"//miyagi:{head.env['PGPASSWORD']}@")

    def workers():
        with suppress(psycopg.errors.UndefinedTable), psycopg.connect(address) as database:
            return {who for (who,) in database.execute(
                "select value_json from trial_user_attributes where key = 'worker'"
            )}  # fmt: skip
        return set()

    def waiting_for(condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert pipeline.poll() is None and time.monotonic() < deadline, runs(head)
            time.sleep(0.1)

    pipeline = head.start("python", "-m", "flows.pipeline", "--cluster", "sweep@simclr")
    try:
        waiting_for(workers)
        given = {"repository": head.run("git", "remote", "get-url", "origin").stdout.strip(), "revision": revision}
        options = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
        head.run(
            "prefect", "deployment", "run", "sweep-worker/sweep-worker", *options, "-p", "experiment=simclr"
        )  # fmt: skip
        waiting_for(lambda: len(workers()) == 2)
        said, _ = pipeline.communicate(timeout=300)
        assert pipeline.returncode == 0, said
    finally:
        head.cluster.stop("worker-node4")
        if pipeline.poll() is None:
            pipeline.kill()
    with (head.root / "runs/simclr/trials.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["number"] for row in rows] == [str(number) for number in range(6)]
    assert {row["state"] for row in rows} == {"complete"} and {row["reproducible"] for row in rows} == {"no"}
    assert ("simclr", "Completed", "gpu") in runs(head)
