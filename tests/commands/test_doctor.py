import http.server
import socket
import threading

import pytest
import yaml

from miyagi.cli import main
from miyagi.commands import doctor
from tests.conftest import SMALL


@pytest.fixture
def checks(project, copied):
    """checks(change): the lines, by what they are about, in a copy of the small project with changed parameters."""

    def run(change=lambda params: None):
        paths = copied(project)
        params = yaml.safe_load(yaml.safe_dump(SMALL))
        (paths.root / "built_in.py").touch()
        params["datasets"]["digits"]["path"] = "built_in.py"
        change(params)
        paths.params.write_text(yaml.safe_dump(params))
        return {check.what: check for check in doctor.run(paths)}

    return run


def test_a_machine_that_runs_the_tests_is_ready(checks, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    found = checks()
    assert "prefect" not in found
    assert {what for what, check in found.items() if check.status == "fail"} == set()
    for what in ("python", "packages", "system libraries", "git", "dvc", "disk", "memory", "processor", "gpu"):
        assert what in found
    assert found["data set digits"].words == "prepared"
    assert "untested without a GPU" in found["gpu"].words
    assert str(found["git"]).startswith("ok    git: /")


def test_what_is_wrong_is_said_with_what_to_do(checks):
    def change(params):
        params["runtime"]["threads"] = 4096
        params["runtime"]["device"] = "cuda"
        params["datasets"]["mine"] = {"source": "imagefolder", "path": "nowhere", "size": 32}

    found = checks(change)
    assert found["processor"].status == "warn" and "slow" in found["processor"].words
    assert found["data set mine"].status == "fail" and "datasets.mine.path" in found["data set mine"].words
    if "none" in found["gpu"].words:
        assert found["gpu"].status == "fail" and "set it to auto" in found["gpu"].words


def test_a_built_in_that_is_not_here_is_downloaded_later(checks):
    photos = {"source": "cifar10", "path": "built_in.py", "size": 32}
    found = checks(lambda params: params["datasets"].update(photos=photos))["data set photos"]
    assert found.status == "warn" and "`dvc repro` downloads it" in found.words


def test_a_server_that_does_not_answer_fails_nothing(checks, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    sweep = {"trials": 2, "space": {"temperature": {"low": 0.1, "high": 1.0}}, "storage": f"postgresql://me@{place}/x"}

    def change(params):
        params["tracking"] = {"uri": f"http://{place}"}
        params["experiments"]["tuned"] = {"method": "simclr", "sweep": sweep}

    monkeypatch.setenv("PREFECT_API_URL", f"http://{place}/api")
    found = checks(change)
    for what, way_out in (
        ("tracking", "miyagi track sync"), ("prefect", "docs/cluster.md"), ("sweep of tuned", "experiments.tuned.sweep.storage")
    ):  # fmt: skip
        assert found[what].status == "warn" and "does not answer" in found[what].words
        assert way_out in found[what].words


def test_a_server_that_answers(monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/api"
        found = doctor._server("prefect", address, address, "")
        server.shutdown()
    assert str(found) == f"ok    prefect: answers at {address}"


def test_other_versions_than_the_tested_ones_are_named(tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text("numpy==0.0.1\npydantic[x]==0.0.2\nno-such-package==1.0\n")
    (found,) = (check for check in doctor._packages(pins) if check.what == "versions")
    assert found.status == "warn"
    assert found.words.startswith("2 other than those tested") and "(tested: 0.0.1)" in found.words


def test_too_little_room_is_told_in_two_steps():
    assert [doctor._room("disk", free, (1, 10), "tidy up").status for free in (10**8, 5 * 10**9, 10**11)] == [
        "fail", "warn", "ok",
    ]  # fmt: skip


def test_exit_2_where_something_needed_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "fail  params.yaml: there is no params.yaml" in said.out
    assert said.err.startswith("miyagi: 1 thing needed is not right")
