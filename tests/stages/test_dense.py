"""Rows with every stamp, equal bytes on a rerun, errors of one line, a report that has them."""

import csv
import json

import pytest
import yaml
from safetensors.numpy import load_file

from miyagi import params
from miyagi.cli import main
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.errors import UserError
from miyagi.protocols.rows import place
from miyagi.registry import PROTOCOLS
from miyagi.stages import dense
from tests.stages.test_probe import STAMPS


def run(paths, protocol, name="simclr"):
    read = params.read(paths.params)
    return dense.run(name, 0, protocol, read.scenes(protocol), read.protocol(protocol, "dense"), paths)


@pytest.fixture(scope="module")
def finished(annotated, tmp_path_factory):
    import shutil

    from miyagi.paths import Paths

    paths = Paths(tmp_path_factory.mktemp("dense") / "project")
    shutil.copytree(annotated.root, paths.root)
    return paths, {name: run(paths, "segmentation", name) for name in ("simclr", "random")}


def test_every_row_has_every_stamp(finished):
    paths, summaries = finished
    written = json.loads(paths.rows("simclr", 0, "segmentation").read_text())
    assert written["summary"] == summaries["simclr"]
    assert set(written["summary"]) == {
        f"scenes.{split}.encoder.{metric}" for split in ("val", "test") for metric in ("miou", "pixel_accuracy")
    }
    kept = load_file(paths.predictions("simclr", 0, "segmentation"))
    for row in written["rows"]:
        assert set(row) == STAMPS
        assert (row["experiment"], row["protocol"], row["dataset"], row["seed"]) == (
            "simclr",
            "segmentation",
            "scenes",
            0,
        )
        assert (row["n"], row["dimensions"]) == ({"val": 12, "test": 16}[row["split"]], 32)
        assert row["low"] <= row["value"] <= row["high"]
        assert row["data"] == data_digest(read_manifest(paths.manifest("scenes")))
        assert len(kept[f"{place(row)}.{row['metric']}.scores"]) == row["n"]
        assert len(kept[f"{place(row)}.{row['metric']}.redrawn"]) == 2000


def test_experiment_and_floor_can_stand_in_one_table(finished):
    paths, _ = finished
    mine, its = (json.loads(paths.rows(name, 0, "segmentation").read_text())["rows"] for name in ("simclr", "random"))
    for a, b in zip(mine, its, strict=True):
        assert [a[key] for key in ("settings", "split", "data", "code", "n")] == [
            b[key] for key in ("settings", "split", "data", "code", "n")
        ]
        assert (a["chosen"]["start"], b["chosen"]["start"]) == ("pretrained", "scratch")
        assert b["selection"] == "lr, steps and stop best of 2 on val"


def test_a_data_set_without_what_is_needed_is_a_note(finished, capsys, copied):
    again = copied(finished[0])
    run(again, "segmentation")
    note = "miyagi: note: segmentation does not apply to dense.datasets.spheres: it has no masks"
    assert [line for line in capsys.readouterr().err.splitlines() if "note" in line] == [note]
    for name in ("rows", "predictions"):  # and the same bytes as the first time
        assert getattr(again, name)("simclr", 0, "segmentation").read_bytes() == (
            getattr(finished[0], name)("simclr", 0, "segmentation").read_bytes()
        )


def test_none_that_fits_is_one_line(finished, copied):
    again = copied(finished[0])
    settings = yaml.safe_load(again.params.read_text())
    settings["evaluate"]["detection"]["datasets"] = ["spheres"]
    again.params.write_text(yaml.safe_dump(settings))
    reason = r"detection does not apply to dense\.datasets\.spheres: it has no boxes"
    with pytest.raises(UserError, match=rf"dense\.protocols: {reason}; take detection off the list") as error:
        run(again, "detection")
    assert "\n" not in str(error.value)


REST = {"detection": ("scenes", {"width": 16, "representation": 32}), "surface_normals": ("spheres", {})}
"""The other protocols of the family, with a data set each and what makes them quick."""


def test_every_protocol_of_the_family_is_run():
    assert {"segmentation", *REST} == {name for name, entry in PROTOCOLS.entries.items() if entry.family == "dense"}


@pytest.mark.parametrize("protocol", REST)
def test_the_rest_of_the_family_writes_its_rows(annotated, copied, protocol):
    dataset, own = REST[protocol]
    paths = copied(annotated)
    settings = PROTOCOLS.settings(protocol)(
        finetune={"lr": [0.003], "steps": [2]}, optimization={"batch_size": 8, "looks": 1}, **own
    )
    summary = dense.run("simclr", 0, protocol, [dataset], settings, paths)
    written = json.loads(paths.rows("simclr", 0, protocol).read_text())
    assert written["summary"] == summary and len(summary) == len(written["rows"]) >= 6
    kept = load_file(paths.predictions("simclr", 0, protocol))
    for row in written["rows"]:
        assert set(row) == STAMPS
        assert (row["protocol"], row["dataset"]) == (protocol, dataset)
        assert row["low"] <= row["value"] <= row["high"]
        assert len(kept[f"{place(row)}.{row['metric']}.scores"]) == row["n"]


def test_the_command_and_the_report(finished, copied, monkeypatch, tmp_path):
    paths, _ = finished
    again = copied(paths)
    settings = yaml.safe_load(again.params.read_text())
    settings["dense"]["protocols"] = ["segmentation"]
    settings["probe"]["protocols"], settings["finetune"]["protocols"] = ["knn"], []
    again.params.write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(again.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    before = again.rows("simclr", 0, "segmentation").read_bytes()
    again.rows("simclr", 0, "segmentation").unlink()
    main(["dense", "simclr", "0", "segmentation"])
    assert again.rows("simclr", 0, "segmentation").read_bytes() == before
    for name in ("simclr", "random"):
        main(["probe", name, "0", "knn"])
    main(["report"])
    table = (again.reports / "results.csv").read_text()
    versus = {(row["experiment"], row["metric"]): row["vs_random"] for row in csv.DictReader(table.splitlines())}
    assert versus["simclr", "miou"] and versus["simclr", "pixel_accuracy"] and not versus["random", "miou"]
    assert ",segmentation," in table and ",miou," in table and ",pixel_accuracy," in table
    assert "segmentation on scenes: miou" in (again.reports / "report.html").read_text()
    again.rows("random", 0, "segmentation").unlink()
    with pytest.raises(SystemExit):
        main(["report"])
