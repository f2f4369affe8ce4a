import json
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

from miyagi.cli import main
from miyagi.tracking import store

ROOT = Path(__file__).parent.parent
MIYAGI = str(Path(sys.executable).parent / "miyagi")


def miyagi(*arguments, cwd=ROOT):
    return subprocess.run([MIYAGI, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_is_quick():
    miyagi("--help")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = miyagi("--help")
        times.append(time.perf_counter() - start)
    assert done.returncode == 0
    assert all(
        command in done.stdout
        for command in (
            *("prepare", "pretrain", "probe", "report", "list", "check", "track"),
            *("doctor", "preview", "estimate", "export", "embed-images"),
        )
    )
    assert min(times) < 0.5


def test_a_users_mistake_is_a_line_and_exit_2(tmp_path):
    done = miyagi("check", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("miyagi: there is no params.yaml in ")
    assert "Traceback" not in done.stderr


def test_a_worker_runs_no_other_stage_than_its_own(monkeypatch):
    """A cluster's worker sets ONLY_STAGE, DVC sets DVC_STAGE."""
    monkeypatch.setenv("ONLY_STAGE", "probe@simclr-0-knn")
    monkeypatch.setenv("DVC_STAGE", "pretrain@simclr-0")
    done = miyagi("check")
    assert done.returncode == 2
    assert done.stderr == (
        "miyagi: pretrain@simclr-0 comes before probe@simclr-0-knn and is not in the DVC remote; "
        "run it first, and push its results\n"
    )
    monkeypatch.setenv("DVC_STAGE", "probe@simclr-0-knn")
    assert miyagi("check").returncode == 0
    monkeypatch.delenv("DVC_STAGE")
    assert miyagi("check").returncode == 0


def test_check():
    assert re.fullmatch(r"params.yaml: \d+ experiments, \d+ data sets, 1 seed: ok\n", miyagi("check").stdout)


def test_a_closed_pipe_is_no_traceback():
    done = subprocess.run(f"{MIYAGI} list methods | head -0", shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_python_keeps_its_own_ssl():
    """`ssl/` is a source root; as a package it would shadow the standard library's module of that name."""
    assert not (ROOT / "ssl" / "__init__.py").exists()
    assert not (ROOT / "ssl.py").exists()
    subprocess.run([sys.executable, "-c", "import ssl; ssl.SSLContext"], cwd=ROOT, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_files.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_two_settings_of_a_protocol_have_columns_of_their_own_in_mlflow(trained, copied, monkeypatch, tmp_path):
    paths, uri = copied(trained), f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(paths.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = {}
    for temperature in (0.1, 0.5):
        settings = yaml.safe_load(paths.params.read_text())
        settings["evaluate"]["knn"]["temperature"] = temperature
        paths.params.write_text(yaml.safe_dump(settings))
        main(["probe", "simclr", "0", "knn"])
        for row in json.loads(paths.rows("simclr", 0, "knn").read_text())["rows"]:
            name = f"knn_{row['settings'][:8]}.seed0.digits.{row['split']}.{row['layer']}.top1"
            assert name not in found
            found[name] = row["value"]
    client = store.connect(uri)
    (parent,) = client.search_runs(
        [each.experiment_id for each in client.search_experiments()], "tags.`miyagi.role` = 'experiment'"
    )
    assert parent.data.metrics == found


def test_studies_are_listed_and_shown():
    listed = miyagi("study", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted((line.split()[0] for line in listed), key=int)
    assert any(line.split()[1] == "temperature" and " stages " in line for line in listed)
    assert "#   unit_0_07" in miyagi("study", "show", "temperature").stdout.splitlines()
    for arguments, message in [
        (("run",), "study run: name one, e.g. `miyagi study run temperature`"),
        (("show", "temprature"), "studies: there is no 'temprature'; did you mean 'temperature'?"),
    ]:
        done = miyagi("study", *arguments)
        assert (done.returncode, done.stderr) == (2, f"miyagi: {message}\n")
