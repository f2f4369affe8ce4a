"""Tracking against a real sqlite store, real processes and a real MLflow server."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run as Found
from mlflow.tracking import MlflowClient

from miyagi import tracking
from miyagi.paths import Paths
from miyagi.settings import Tracking
from miyagi.tracking import durations, journal, run, store, trouble

SOURCE = Path(tracking.__file__).parents[2]
SETTINGS = Tracking()


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests, and none of one test in the next."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setattr(trouble, "_warned", set())


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    root = tmp_path / "a project, é 100%"
    root.mkdir()
    return Paths(root)


def begin(
    paths: Paths,
    settings: Tracking = SETTINGS,
    target: str = "simclr-0",
    experiment: str | None = "simclr",
    params: dict[str, Any] | None = None,
) -> tracking.Run:
    return tracking.Run(paths, settings, "pretrain", target, experiment, "f00", params or {})


def runs(paths: Paths, role: str, settings: Tracking = SETTINGS) -> list[Found]:
    client = store.connect(store.locate(paths, settings).uri)
    found = client.get_experiment_by_name(settings.experiment)
    return list(client.search_runs([found.experiment_id], f"tags.`miyagi.role` = '{role}'")) if found else []


def history(paths: Paths, run_id: str, key: str, settings: Tracking = SETTINGS) -> list[tuple[int, float]]:
    client = store.connect(store.locate(paths, settings).uri)
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id, key))


def journals(paths: Paths) -> list[Path]:
    return sorted((paths.scratch / "tracking").glob("*.jsonl"))


def python(paths: Paths, body: str) -> "subprocess.Popen[str]":
    """A real process with `paths` and `begin` at hand."""
    head = (
        "import sys, time\nfrom pathlib import Path\nfrom miyagi import tracking\nfrom miyagi.paths import Paths\n"
        "from miyagi.settings import Tracking\npaths = Paths(Path(sys.argv[1]))\n"
        "def begin(target='simclr-0'):\n"
        "    return tracking.Run(paths, Tracking(), 'pretrain', target, 'simclr', 'f00', {})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + body, str(paths.root)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def serve(tmp_path: Path, port: int) -> Iterator[Callable[[], None]]:
    """A function that starts a real MLflow server on `port` and returns when it answers."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(tmp_path / "server-artifacts")]
        with (tmp_path / "server.log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True))
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail((tmp_path / "server.log").read_text())

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_round_trip(paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    out = paths.root / "runs" / "simclr" / "0" / "history.csv"
    out.parent.mkdir(parents=True)
    out.write_text("epoch,loss\n0,1.5\n")
    large = out.with_name("encoder.safetensors")
    large.write_bytes(bytes(run.ARTIFACT_LIMIT + 1))
    with begin(paths, params={"pretrain": {"lr": 0.1, "crop": {"scale": (0.1, 1.0)}}, "epochs": 2}) as track:
        track.log({"loss": 1.5, "knn": 0.25}, step=0)
        track.log({"loss": 0.5, "knn": 0.75}, step=1)
        track.outs([out, Path("runs/simclr/0/encoder.safetensors")])
        track.headline({"linear/test/top1": 0.875})
    assert capfd.readouterr() == ("", "")
    (found,), (parent,) = runs(paths, "stage"), runs(paths, "experiment")
    assert found.data.params == {"pretrain.lr": "0.1", "pretrain.crop.scale": "(0.1, 1.0)", "epochs": "2"}
    assert history(paths, found.info.run_id, "loss") == [(0, 1.5), (1, 0.5)]
    assert found.data.metrics["knn"] == 0.75
    assert found.data.metrics["system/process_memory_mib"] > 10
    assert found.data.metrics["system/process_cpu_percent"] >= 0
    tags = found.data.tags
    assert tags["miyagi.stage"] == "pretrain"
    assert tags["miyagi.target"] == "simclr-0"
    assert tags["miyagi.experiment"] == "simclr"
    assert tags["miyagi.fingerprint"] == "f00"
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    for file in (out, large):
        name = file.relative_to(paths.root).as_posix()
        expected = f"{hashlib.md5(file.read_bytes()).hexdigest()} {file.stat().st_size}"
        assert tags[f"miyagi.out.{name}"] == expected
    client = store.connect(store.locate(paths, SETTINGS).uri)
    assert [a.path for a in client.list_artifacts(found.info.run_id, "runs/simclr/0")] == ["runs/simclr/0/history.csv"]
    copy = client.download_artifacts(found.info.run_id, "runs/simclr/0/history.csv")
    assert Path(copy).read_bytes() == out.read_bytes()
    assert (found.info.run_name, found.info.status) == ("pretrain@simclr-0", "FINISHED")
    assert {key: parent.data.tags[key] for key in ("miyagi.experiment", "miyagi.role")} == {
        "miyagi.experiment": "simclr",
        "miyagi.role": "experiment",
    }
    assert parent.data.metrics == {"linear/test/top1": 0.875}
    assert (parent.info.run_name, parent.info.status) == ("simclr", "FINISHED")
    assert journals(paths) == []
    assert sorted(path.name for path in paths.scratch.iterdir()) == ["artifacts", "durations", "mlflow.db", "tracking"]


def test_values_that_mlflow_does_not_take(paths: Paths) -> None:
    many = {f"p{i}": i for i in range(250)}
    odd = paths.root / "out (1),#.csv"
    odd.write_text("x")
    with begin(paths, experiment=None, params={"long": "x" * 7000, "odd key (é)!": "", "many": many}) as track:
        track.log({"loss": float("nan"), "top@1": float("-inf"), "fine": 1}, step=3)
        track.log({f"m{i}": i for i in range(2000)}, step=4)
        track.log({"fine": "not a number"}, step=5)  # type: ignore[dict-item]
        track.outs([odd, paths.root / "missing.csv"])
        track.headline({"top1": 0.5})
    (found,) = runs(paths, "stage")
    assert found.data.params["long"] == "x" * 5990 + " [cut]"
    assert found.data.params["odd key _é__"] == ""
    assert len(found.data.params) == 252
    assert found.data.metrics["nonfinite/loss"] == found.data.metrics["nonfinite/top_1"] == 1.0
    assert "loss" not in found.data.metrics
    assert found.data.metrics["m1999"] == 1999
    assert history(paths, found.info.run_id, "fine") == [(3, 1.0)]
    assert found.data.metrics["top1"] == 0.5  # no parent: the run itself
    assert found.data.tags["miyagi.out.out _1___.csv"].endswith(" 1")
    assert "mlflow.parentRunId" not in found.data.tags
    assert runs(paths, "experiment") == []
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad lr"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")]
)
def test_status_of_a_run_that_breaks_off(paths: Paths, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), begin(paths):
        raise error
    (found,) = runs(paths, "stage")
    assert found.info.status == status
    assert found.data.tags["miyagi.error"].startswith(type(error).__name__)
    assert runs(paths, "experiment")[0].info.status == status


def test_git_revision(paths: Paths) -> None:
    begin(paths).finish()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(paths.root)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    begin(paths, target="simclr-1").finish()
    seen = {r.data.tags["miyagi.target"]: r.data.tags.get("mlflow.source.git.commit") for r in runs(paths, "stage")}
    assert seen == {"simclr-0": None, "simclr-1": head}


def test_two_processes_on_a_fresh_folder_make_one_parent(paths: Paths) -> None:
    body = (
        "target = '{}'\nPath(target).touch()\n"
        "while not all(Path(paths.root, f).exists() for f in ('a', 'b')): time.sleep(0.001)\n"
        "with begin(target) as track: track.headline({{target: 1.0}})\n"
    )
    both = [python(paths, body.format(target).replace("Path(target)", "(paths.root / target)")) for target in "ab"]
    for process in both:
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
    (parent,), children = runs(paths, "experiment"), runs(paths, "stage")
    assert parent.data.metrics == {"a": 1.0, "b": 1.0}
    assert sorted(child.data.tags["miyagi.target"] for child in children) == ["a", "b"]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert journals(paths) == []


@pytest.mark.integration
def test_server_down_then_up(
    paths: Paths, tmp_path: Path, port: int, serve: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Tracking(uri=f"http://127.0.0.1:{port}")
    out = paths.root / "rows.json"
    out.write_text("{}")
    started = time.monotonic()
    with begin(paths, settings, params={"lr": 0.1}) as track:
        for step in range(50):
            track.log({"loss": 1 / (step + 1)}, step)
        track.outs([out])
        track.headline({"top1": 0.5})
    assert time.monotonic() - started < 5
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "miyagi track sync" in printed.err
    assert f"127.0.0.1:{port}" in printed.err
    assert len(journals(paths)) == 1
    down = tracking.sync(paths, settings)
    assert (down.replayed, down.left, len(down.notes)) == (0, 1, 1)
    assert str(down).startswith("0 runs sent to MLflow, 1 left, 0 still running\nMLflow at http://127.0.0.1")

    serve()
    assert tracking.sync(paths, settings) == tracking.Synced(1, 0, 0, ())
    (found,), (parent,) = runs(paths, "stage", settings), runs(paths, "experiment", settings)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"lr": "0.1"}
    assert history(paths, found.info.run_id, "loss", settings) == [(step, 1 / (step + 1)) for step in range(50)]
    assert parent.data.metrics == {"top1": 0.5}
    client = store.connect(settings.uri or "")
    copy = client.download_artifacts(found.info.run_id, "rows.json", str(tmp_path))
    assert Path(copy).read_text() == "{}"
    assert journals(paths) == []
    assert tracking.sync(paths, settings) == tracking.Synced(0, 0, 0, ())
    assert len(runs(paths, "stage", settings)) == 1

    # A scratch folder that cannot be made costs the journal, not the run: the server still gets it.
    broken = Paths(tmp_path / "broken")
    broken.root.mkdir()
    broken.scratch.write_text("a file where a folder should be")
    with begin(broken, settings, target="simclr-1") as track:
        track.log({"loss": 1.0}, 0)
    assert "no tracking journal" in capfd.readouterr().err
    states = {r.data.tags["miyagi.target"]: r.info.status for r in runs(paths, "stage", settings)}
    assert states == {"simclr-0": "FINISHED", "simclr-1": "FINISHED"}


def test_server_that_hangs_is_tried_once(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(run, "SLOW", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Tracking(uri=f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with begin(paths, settings) as track:
            for step in range(5):
                track.log({"loss": 1.0}, step)
        first = time.monotonic() - started
        assert 0.9 < first < 6
        # The next stage is another process: it is told, and does not wait at all.
        started = time.monotonic()
        with begin(paths, settings, target="simclr-1") as track:
            track.log({"loss": 1.0}, 0)
        assert time.monotonic() - started < 0.5
    assert len(journals(paths)) == 2
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1
    assert "secret" not in printed
    # Told of that server only: another store is tried at once.
    assert tracking.sync(paths, SETTINGS) == tracking.Synced(2, 0, 0, ())


def test_kill_in_mid_run(paths: Paths) -> None:
    process = python(
        paths, "t = begin()\nfor i in range(3): t.log({'loss': i}, i)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert tracking.sync(paths, SETTINGS) == tracking.Synced(0, 0, 1, ())
    (before,) = runs(paths, "stage")
    assert before.info.status == "RUNNING"
    process.kill()
    process.communicate(timeout=20)
    assert tracking.sync(paths, SETTINGS) == tracking.Synced(1, 0, 0, ())
    (after,) = runs(paths, "stage")
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "KILLED")
    assert after.info.end_time <= time.time() * 1000
    # All of it had been sent before the kill: sending it again must not double it.
    assert history(paths, after.info.run_id, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert journals(paths) == []


def test_store_that_lost_the_run_gets_all_of_it(paths: Paths) -> None:
    process = python(paths, "t = begin()\nt.log({'loss': 1.0}, 0)\nimport os, signal; os.kill(os.getpid(), 9)\n")
    process.communicate(timeout=60)
    elsewhere = Tracking(uri="elsewhere")
    assert tracking.sync(paths, elsewhere).replayed == 1
    (found,) = runs(paths, "stage", elsewhere)
    assert history(paths, found.info.run_id, "loss", elsewhere) == [(0, 1.0)]
    assert (paths.root / "elsewhere" / "mlflow.db").exists()


def leave(paths: Paths, *lines: bytes, **start: object) -> Path:
    """A journal as a killed process leaves it, with `lines` after its start."""
    event = {"event": "start", "time": 1000, "journal": "abc", "name": "pretrain@a", "tags": {"miyagi.role": "stage"}}
    event |= {"experiment": None, "mlflow_experiment": "miyagi", "params": {}, **start}
    path = paths.scratch / "tracking" / "pretrain-a-abc.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join([json.dumps(event).encode(), *lines]))
    return path


def test_torn_last_line(paths: Paths) -> None:
    whole = b'{"event":"metrics","time":2000,"step":0,"metrics":{"loss":1.5}}'
    leave(paths, whole, b'{"event":"metrics","time":3000,"step":1,"met')
    assert tracking.sync(paths, SETTINGS) == tracking.Synced(1, 0, 0, ())
    (found,) = runs(paths, "stage")
    assert history(paths, found.info.run_id, "loss") == [(0, 1.5)]
    assert (found.info.status, found.info.start_time, found.info.end_time) == ("KILLED", 1000, 2000)


def test_damaged_start_is_set_aside(paths: Paths) -> None:
    path = leave(paths)
    path.write_bytes(b'{"event":"star\n{"event":"metrics","time":2000,"step":0,"metrics":{"loss":1.5}}\n')
    done = tracking.sync(paths, SETTINGS)
    assert (done.replayed, done.left) == (0, 1)
    assert "unreadable" in done.notes[0]
    assert path.with_suffix(".unreadable").exists()
    assert tracking.sync(paths, SETTINGS) == tracking.Synced(0, 0, 0, ())


def test_full_disk_tears_a_line_and_the_next_one_is_whole(tmp_path: Path) -> None:
    body = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom miyagi.tracking.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "j = Journal.create(Path(sys.argv[1]), 'x')\nlost = 0\n"
        "for i in range(40):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if i < 30 else 10**9, resource.RLIM_INFINITY))\n"
        "    try: j.append({'event': 'metrics', 'time': i, 'pad': 'x' * 50})\n"
        "    except OSError: lost += 1\n"
        "print(lost, *(e['time'] for e in j.read()))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", body, str(tmp_path)]
    lost, *kept = subprocess.check_output(command, text=True, env=environment).split()
    assert int(lost) + len(kept) == 40
    assert 10 < int(lost) < 30
    assert kept[-10:] == [str(i) for i in range(30, 40)]


def test_artifact_that_changed_before_the_replay(paths: Paths) -> None:
    kept, changed, gone = (paths.root / name for name in ("kept.csv", "changed.csv", "gone.csv"))
    lines = []
    for file in (kept, changed, gone):
        file.write_text("old")
        event = {"event": "out", "time": 2000, "path": file.name, "size": 3, "artifact": True}
        lines.append(json.dumps(event | {"md5": hashlib.md5(b"old").hexdigest()}).encode())
    leave(paths, *lines)
    changed.write_text("new")
    gone.unlink()
    done = tracking.sync(paths, SETTINGS)
    assert (done.replayed, done.left) == (1, 0)
    assert [name for name in ("changed.csv", "gone.csv") if any(name in note for note in done.notes)] == [
        "changed.csv",
        "gone.csv",
    ]
    assert len(done.notes) == 2
    (found,) = runs(paths, "stage")
    client = MlflowClient(store.locate(paths, SETTINGS).uri)
    assert [a.path for a in client.list_artifacts(found.info.run_id)] == ["kept.csv"]
    for file in (kept, changed, gone):
        assert found.data.tags[f"miyagi.out.{file.name}"] == f"{hashlib.md5(b'old').hexdigest()} 3"


def test_scratch_that_cannot_be_written(paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    paths.scratch.write_text("a file where a folder should be")
    with begin(paths) as track:
        track.log({"loss": 1.0}, 0)
        track.outs([paths.root / "nothing"])
        track.headline({"top1": 1.0})
    printed = capfd.readouterr().err
    assert "no tracking journal" in printed
    assert "the run is lost" in printed
    assert "Traceback" not in printed


def test_an_old_journal_does_not_turn_the_parent_back(paths: Paths) -> None:
    with begin(paths) as track:
        track.headline({"top1": 0.75})
    failed = b'{"event":"finish","time":3000,"status":"FAILED","error":"ValueError: x"}'
    leave(paths, b'{"event":"headline","time":2000,"metrics":{"top1":0.25}}', failed, experiment="simclr")
    assert tracking.sync(paths, SETTINGS).replayed == 1
    (parent,) = runs(paths, "experiment")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"top1": 0.75}


def test_lock_is_held_and_given_up(tmp_path: Path) -> None:
    with journal.locked(tmp_path / "lock"), pytest.raises(TimeoutError), journal.locked(tmp_path / "lock", 0.05):
        pass
    with journal.locked(tmp_path / "lock", 0.05):
        pass


@pytest.mark.parametrize(
    ("uri", "expected", "artifacts"),
    [
        (None, "sqlite:////p/.miyagi/mlflow.db", "file:///p/.miyagi/artifacts"),
        ("sqlite:///x/runs.db", "sqlite:////p/x/runs.db", "file:///p/x/artifacts"),
        ("sqlite:////y/runs.db?timeout=9", "sqlite:////y/runs.db?timeout=9", "file:///y/artifacts"),
        ("mlruns", "sqlite:////p/mlruns/mlflow.db", "file:///p/mlruns/artifacts"),
        ("file:///y%20z", "sqlite:////y z/mlflow.db", "file:///y%20z/artifacts"),
        ("http://h:5000", "http://h:5000", None),
        ("postgresql://u:p@h/db", "postgresql://u:p@h/db", "file:///p/.miyagi/artifacts"),
    ],
)
def test_where_mlflow_is(
    uri: str | None, expected: str, artifacts: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.locate(Paths(Path("/p")), Tracking(uri=uri)) == store.Store(expected, artifacts)
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert store.locate(Paths(Path("/p")), SETTINGS) == store.Store(expected, artifacts)


def test_ui_command(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tracking.ui_command(paths, SETTINGS)
    assert command.endswith(f"mlflow ui --backend-store-uri 'sqlite:///{paths.scratch}/mlflow.db' --host 127.0.0.1")
    assert tracking.ui_command(paths, Tracking(uri="http://u:secret@host:5000")) == "http://***@host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:secret@host/db")
    assert '--backend-store-uri "$MLFLOW_TRACKING_URI"' in tracking.ui_command(paths, SETTINGS)


def test_a_stage_that_ended_well_leaves_its_duration(paths: Paths) -> None:
    begin(paths).finish("FAILED")
    assert durations.read(paths) == {}
    begin(paths).finish()
    begin(paths, target="simclr-1").finish()
    found = durations.read(paths)
    assert found.keys() == {"pretrain@simclr-0", "pretrain@simclr-1"}
    assert min(found.values()) > 0
