"""The DAG's promises, on the real tools: what an edit reruns, what is equal, what is tracked."""

import json
import subprocess
import time

import pytest
import yaml

from tests.integration.project import ALL, EXPERIMENTS, OF_SIMCLR, stages

pytestmark = pytest.mark.integration


def test_the_first_run_executes_everything(finished):
    assert finished.executed == ALL


def test_a_run_leaves_git_clean_but_for_the_lock(finished):
    assert finished.run("git", "status", "--porcelain").stdout.split() == ["M", "params.yaml", "??", "dvc.lock"]


def test_a_second_run_executes_nothing_and_is_quick(project):
    project.repro()  # a copied folder's files have new inodes, so DVC hashes them once more
    times = []
    for _ in range(2):
        start = time.perf_counter()
        assert project.repro() == set()
        times.append(time.perf_counter() - start)
    assert min(times) < 4


def test_force_gives_the_same_bytes(project):
    before = project.outs
    assert project.repro("--force") == ALL
    changed = {path for path, identity in project.outs.items() if before[path] != identity}
    assert changed <= {"reports/report.html"}


def test_scoping(project):
    """Edits one after the other; each reruns exactly what it touches."""

    def edited(change):
        project.edit(change)
        return project.repro()

    assert edited(lambda p: p["experiments"]["simclr"].update(temperature=0.3)) == OF_SIMCLR | {"report"}
    assert edited(lambda p: p["evaluate"]["knn"].update(k=10)) == stages("probe@{E}-0-knn", "report")
    assert edited(lambda p: p["evaluate"]["lowlabel"].update(draws=2)) == {"finetune@simclr-0-lowlabel", "report"}
    tuned = edited(lambda p: p["finetune"].update(experiments=["simclr", "random"]))
    assert tuned == {"finetune@random-0-lowlabel", "report"}
    assert edited(lambda p: p["finetune"].update(experiments=["simclr"])) == {"report"}
    trained = {s for s in ALL if "random" not in s and not s.startswith("prepare")}
    assert edited(lambda p: p["pretrain"].update(lr=0.003)) == trained | {"sweep@random"}
    added = edited(lambda p: p["experiments"].update(moco={"method": "moco", "queue": 128}))
    frozen = {s for s in OF_SIMCLR if not s.startswith("finetune")}  # fine-tuning has its own list of experiments
    assert added == {s.replace("simclr", "moco") for s in frozen} | {"report"}


def test_dvc_shows_metrics_plots_and_params(project):
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    for name in EXPERIMENTS:
        summary = files[f"runs/{name}/0/knn.json"]["data"]["summary"]
        rows = json.loads((project.root / f"runs/{name}/0/knn.json").read_text())["rows"]
        for row in rows:
            assert summary[f"{row['dataset']}.{row['split']}.{row['layer']}.{row['metric']}"] == row["value"]
    project.run("dvc", "plots", "show")
    page = (project.root / "dvc_plots" / "index.html").read_text()
    assert "runs/simclr/0/history.csv" in page
    project.run("git", "add", "-f", "dvc.lock")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qam", "small")
    project.edit(lambda p: p["evaluate"]["knn"].update(k=11))
    assert "evaluate.knn.k" in project.run("dvc", "params", "diff").stdout


def test_every_row_is_stamped(finished):
    rows = json.loads((finished.root / "runs/simclr/0/linear.json").read_text())["rows"]
    assert {row["split"] for row in rows} == {"val", "test"}
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == {"val": 64, "test": 200}[row["split"]]
        assert row["selection"] == "c best of 4 on val"
        for stamp in ("protocol", "settings", "dataset", "layer", "seed", "data", "code"):
            assert row[stamp] not in ("", None)


def test_an_out_holds_no_time_host_or_path(finished):
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout.strip()
    for path in finished.outs:
        if path.endswith((".json", ".csv", ".yaml")):
            text = (finished.root / path).read_text()
            assert str(finished.root) not in text, path
            assert host not in text or len(host) < 4, path


def test_mlflow_holds_every_out_and_every_number(finished):
    """Walks dvc.lock: each out's path, md5 and size, and each number of each P.json, by the API of the real store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{finished.root}/.miyagi/mlflow.db")
    experiment = client.get_experiment_by_name("miyagi")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    tags = {key: value for run in runs for key, value in run.data.tags.items() if key.startswith("miyagi.out.")}
    for path, (md5, size) in finished.outs.items():
        assert tags[f"miyagi.out.{path}"] == f"{md5} {size}"
    assert all(run.info.status == "FINISHED" for run in runs)
    parents = {run.data.tags["miyagi.experiment"]: run for run in runs if run.data.tags["miyagi.role"] == "experiment"}
    assert set(parents) == set(EXPERIMENTS)
    for name in EXPERIMENTS:
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[name].info.run_id]
        own = {"finetune": ["lowlabel"]} if name == "simclr" else {}
        assert {run.data.tags["miyagi.stage"] for run in children} == {"sweep", "pretrain", "embed", "probe", *own}
        for protocol in ("knn", "linear", *own.get("finetune", ())):
            (run,) = [r for r in children if r.data.tags["miyagi.target"] == f"{name}-0-{protocol}"]
            kept = json.loads((finished.root / f"runs/{name}/0/{protocol}.json").read_text())
            written, (settings,) = kept["summary"], {row["settings"][:8] for row in kept["rows"]}
            assert {key: run.data.metrics[key] for key in written} == written
            for key, value in written.items():
                assert parents[name].data.metrics[f"{protocol}_{settings}.seed0.{key}"] == value
    lock = yaml.safe_load((finished.root / "dvc.lock").read_text())
    fingerprints = {
        run.data.tags["miyagi.fingerprint"] for run in runs if run.data.tags.get("miyagi.stage") == "pretrain"
    }
    for name in EXPERIMENTS:
        assert f"pretrain@{name}-0" in lock["stages"]
        assert json.loads((finished.root / f"runs/{name}/0/run.json").read_text())["fingerprint"] in fingerprints
