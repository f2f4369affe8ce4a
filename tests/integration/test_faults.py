"""Bad input and broken surroundings through the real command line: a line or two, exit 2, nothing lost."""

import shutil
import socket

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def refused(project, *command):
    """Run a command that must be refused; its message."""
    done = project.run(*command, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) <= 2
    return done.stderr


def test_a_typo_stops_dvc_with_one_line(project):
    before = project.outs
    project.edit(lambda p: p["experiments"]["simclr"].update(temprature=0.3))
    done = project.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "unknown key 'experiments.simclr.temprature'; did you mean 'temperature'?" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    project.edit(lambda p: p["experiments"]["simclr"].pop("temprature"))
    assert project.repro() == set()
    assert project.outs == before


def test_a_typo_in_a_methods_name(project):
    project.edit(lambda p: p["experiments"].update(other={"method": "simcrl"}))
    assert "there is no method 'simcrl'; did you mean 'simclr'?" in refused(project, "miyagi", "sweep", "other")


def test_an_experiment_that_is_not_there(project):
    assert "experiments.simcrl" in refused(project, "miyagi", "sweep", "simcrl")
    assert "dvc repro" in refused(project, "miyagi", "pretrain", "simcrl", "0")


def test_fewer_images_than_a_batch(project):
    project.edit(lambda p: p["pretrain"].update(batch_size=4096))
    project.repro("pretrain@simclr-0")
    assert (project.root / "runs/simclr/0/history.csv").read_text().count("\n") == 3


def test_more_neighbours_than_images(project):
    project.edit(lambda p: p["evaluate"]["knn"].update(k=5000))
    message = refused(project, "miyagi", "probe", "simclr", "0", "knn")
    assert "evaluate.knn.k: 5000 neighbours, but the bank holds 256 training images" in message


def test_an_output_that_cannot_be_written(project):
    shutil.rmtree(project.root / "runs" / "simclr")
    (project.root / "runs" / "simclr").write_text("in the way")
    assert "cannot write" in refused(project, "miyagi", "sweep", "simclr")


def test_a_damaged_input_names_its_file(project):
    file = project.root / "runs/simclr/0/encoder.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:1000])
    assert "encoder.safetensors" in refused(project, "miyagi", "embed", "simclr", "0", "digits")


def test_a_diverging_loss_is_told(project):
    project.edit(
        lambda p: p["experiments"]["simclr"].update(
            pretrain={"optimizer": "sgd", "lr": 1e30, "epochs": 1, "warmup_epochs": 0}
        )
    )
    project.run("miyagi", "sweep", "simclr")
    assert "the loss is nan in epoch 1: lower pretrain.lr" in refused(project, "miyagi", "pretrain", "simclr", "0")


def test_without_the_tracking_server_training_goes_on(project):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    project.edit(lambda p: p["tracking"].update(uri=f"http://127.0.0.1:{port}"))
    project.edit(lambda p: p["experiments"]["simclr"].update(temperature=0.4))
    assert "pretrain@simclr-0" in project.repro()
    waiting = list((project.root / ".miyagi/tracking").glob("*"))
    assert waiting
    project.edit(lambda p: p["tracking"].update(uri=None))
    project.run("miyagi", "track", "sync")
    import mlflow.tracking

    client = mlflow.tracking.MlflowClient(f"sqlite:///{project.root}/.miyagi/mlflow.db")
    experiment = client.get_experiment_by_name("miyagi")
    runs = client.search_runs([experiment.experiment_id], "tags.`miyagi.target` = 'simclr-0'")
    assert sorted(run.data.params["settings.temperature"] for run in runs) == ["0.2", "0.4"]
