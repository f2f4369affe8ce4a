"""The zoo once, tiny, through the stages; its table holds what their files hold."""

import json
import subprocess
import sys

import pytest
import yaml

from benchmarks import machine, zoo
from benchmarks.process import environment, here
from benchmarks.settings import ROOT
from miyagi.registry import METHODS

TINY = {
    "zoo": {"jobs": 1, "train_limit": 128, "val_limit": 40, "test_limit": 60, "size": 32, "seeds": {"random": [0, 1], "rotation": [0, 1]}},
    "runtime": {"threads": 1},
    "encoder": {"width": 8},
    "pretrain": {"epochs": 2, "batch_size": 64, "monitor": {"every": 0}},
    "evaluate": {"knn": {"k": 5}, "layers": {"c": [0.1]}},
    "experiments": {
        "random": {"method": "random"},
        "rotation": {"method": "rotation"},
        "simclr": {"method": "simclr", "recipe": "simclr_small"},
        "colorization": {"method": "colorization", "width": 8},
    },
}  # fmt: skip


def test_every_method_is_in_the_zoo():
    entries = yaml.safe_load(zoo.FILE.read_text())["experiments"]
    assert {entry["method"] for entry in entries.values()} == set(METHODS.entries)


@pytest.mark.parametrize("file", [zoo.FILE, zoo.FILE.with_name("zoo_longer.yaml")], ids=lambda file: file.stem)
def test_every_entry_can_be_resolved(tmp_path, file):
    params, seeds, jobs = zoo.project(tmp_path, file, None)
    for name in params.experiments:
        assert params.experiment(name).method == params.experiments[name]["method"]
    assert set(seeds) <= set(params.experiments)
    assert jobs * params.runtime.threads == 2  # the cores that the table is made on


def test_an_unknown_experiment_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        zoo.main(["simcrl", "--folder", str(tmp_path), "--out", str(tmp_path / "methods.md")], call=here)
    assert "there is no experiment 'simcrl'; did you mean 'simclr'" in capsys.readouterr().err


def asked(images, folder):
    """The command's options for the tiny zoo, kept in a folder with its page."""
    (folder / "zoo.yaml").write_text(yaml.safe_dump(TINY))
    given = {"images": images, "params": folder / "zoo.yaml", "folder": folder / "kept", "out": folder / "methods.md"}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def test_the_command_runs_its_processes(image_folder, tmp_path):
    """As `make zoo` calls it: where the module is __main__, its functions are still found by their names."""
    out = tmp_path / "methods.md"
    options = asked(image_folder, tmp_path)
    command = [sys.executable, "-m", "benchmarks.zoo", *options, "random"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| `random` | 2 |" in out.read_text()


@pytest.mark.slow
def test_the_table_holds_what_the_stages_wrote(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "code", lambda: "0123456789abcdef")
    out = tmp_path / "methods.md"
    out.write_text("# Methods\n\n<!-- zoo -->\nOUTDATED\n<!-- end of zoo -->\n\nThe end.\n")
    options = asked(image_folder, tmp_path)
    zoo.main([*options, "random", "rotation", "colorization"], call=here)
    assert "colorization learns from colours" in capsys.readouterr().out  # digits have none

    text = out.read_text()
    assert text.startswith("# Methods\n\n<!-- zoo -->\n| experiment")
    assert text.endswith("<!-- end of zoo -->\n\nThe end.\n")
    assert "OUTDATED" not in text
    cells = {line.split(" | ")[0]: line.split(" | ") for line in text.splitlines() if line.startswith("| `")}
    assert set(cells) == {"| `random`", "| `rotation`"}
    (root,) = (tmp_path / "kept").glob("*/runs")
    tops = [
        next(row["value"] for row in json.loads((root / "rotation" / str(seed) / "knn.json").read_text())["rows"]
             if row["split"] == "test")
        for seed in (0, 1)
    ]  # fmt: skip
    assert cells["| `rotation`"][1] == "2"
    assert cells["| `rotation`"][6].startswith(f"{sum(tops) / 2:.2f} [")
    assert cells["| `rotation`"][7][0] in "+-"
    assert float(cells["| `rotation`"][8]) > 0
    assert cells["| `random`"][8] == "-"

    files = {file: file.stat().st_mtime_ns for file in root.rglob("*.json")}
    zoo.main([*options, "random", "rotation"], call=here)
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*.json")} == files  # nothing ran again
