"""Rows with every stamp, the predictions behind them, equal bytes on a rerun, errors of one line."""

import json
import shutil

import pytest
import yaml
from safetensors.numpy import load_file

from miyagi import params
from miyagi.cli import main
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.errors import UserError
from miyagi.files import digest
from miyagi.paths import Paths
from miyagi.protocols.rows import place
from miyagi.registry import PROTOCOLS
from miyagi.stages import finetune

FAST = {
    "lowlabel": {
        "fractions": [0.1], "draws": 2, "finetune": {"lr": [0.01], "steps": [6]}, "scratch": {"lr": [0.01], "steps": [8]},
        "optimization": {"batch_size": 32, "looks": 1},
    },
    "transfer": {"finetune": {"lr": [0.01], "steps": [6]}, "scratch": {"lr": [0.01], "steps": [8]}},
}  # fmt: skip


REST = {
    "linear_augmented": {"grid": {"lr": [0.1, 1.0], "steps": [6]}},
    "corruptions": {"corruptions": ["gaussian_noise", "fog"], "severities": [1, 5], "images": 40, "c": [0.1]},
    "adversarial": {"eps": [2.0], "steps": 2, "images": 40, "c": [0.1]},
}
"""The other protocols of the family, quick as well; each runs once."""


@pytest.fixture(scope="module")
def ready(trained, tmp_path_factory):
    """The small project with a second data set and quick settings."""
    paths = Paths(tmp_path_factory.mktemp("finetune") / "project")
    shutil.copytree(trained.root, paths.root)
    shutil.copytree(paths.manifest("digits").parent, paths.manifest("other").parent)
    settings = yaml.safe_load(paths.params.read_text())
    settings["datasets"]["other"] = settings["datasets"]["digits"]
    settings["evaluate"] |= FAST
    settings["finetune"] = {"experiments": ["random", "simclr"], "protocols": list(FAST)}
    paths.params.write_text(yaml.safe_dump(settings))
    return paths


def run(paths, protocol, name="simclr"):
    read = params.read(paths.params)
    return finetune.run(name, 0, protocol, read.targets(protocol), read.protocol(protocol, "finetune"), paths)


@pytest.fixture(scope="module")
def finished(ready):
    return ready, {(protocol, name): run(ready, protocol, name) for protocol in FAST for name in ("simclr", "random")}


@pytest.mark.parametrize(("protocol", "dataset"), [("lowlabel", "digits"), ("transfer", "other")])
def test_every_row_has_every_stamp(finished, protocol, dataset):
    from tests.stages.test_probe import STAMPS

    paths, summaries = finished
    written = json.loads(paths.rows("simclr", 0, protocol).read_text())
    assert written["summary"] == summaries[protocol, "simclr"]
    assert len(written["summary"]) == len(written["rows"]) == 4
    for row in written["rows"]:
        assert set(row) == STAMPS
        assert [key for key, value in row.items() if value is None] == (["draw"] if protocol == "transfer" else [])
        assert (row["experiment"], row["protocol"], row["dataset"], row["seed"]) == ("simclr", protocol, dataset, 0)
        assert (row["layer"], row["dimensions"], row["metric"], row["n"]) == (
            "encoder", 32, "top1", {"val": 64, "test": 200}[row["split"]],
        )  # fmt: skip
        assert row["low"] <= row["value"] <= row["high"]
        assert row["condition"]["labels"] == (30 if protocol == "lowlabel" else 256)
        assert row["data"] == data_digest(read_manifest(paths.manifest(dataset)))


def test_summary_names_tell_conditions_and_draws_apart(finished):
    _, summaries = finished
    assert set(summaries["lowlabel", "simclr"]) == {
        f"digits.{split}.encoder.fraction_0.1_labels_30.draw_{draw}.top1"
        for split in ("val", "test")
        for draw in (0, 1)
    }


def test_every_protocol_of_the_family_is_run():
    assert FAST.keys() | REST.keys() == {
        name for name, entry in PROTOCOLS.entries.items() if entry.family == "finetune"
    }


@pytest.mark.parametrize("protocol", REST)
def test_the_rest_of_the_family_writes_its_rows(ready, copied, protocol):
    from tests.stages.test_probe import STAMPS

    paths = copied(ready)
    settings = PROTOCOLS.settings(protocol)(**REST[protocol])
    summary = finetune.run("simclr", 0, protocol, ["digits"], settings, paths)
    written = json.loads(paths.rows("simclr", 0, protocol).read_text())
    assert written["summary"] == summary and len(summary) == len(written["rows"]) > 1
    kept = load_file(paths.predictions("simclr", 0, protocol))
    for row in written["rows"]:
        assert set(row) == STAMPS
        assert (row["protocol"], row["settings"]) == (protocol, digest(settings.model_dump(mode="json")))
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 100
        assert place(row) in kept or len(kept[f"{place(row)}.{row['metric']}.scores"]) == row["n"]


@pytest.mark.parametrize("protocol", FAST)
def test_the_predictions_give_the_values(finished, protocol):
    paths, _ = finished
    kept = load_file(paths.predictions("simclr", 0, protocol))
    for row in json.loads(paths.rows("simclr", 0, protocol).read_text())["rows"]:
        labels = kept[f"{row['dataset']}.{row['split']}.labels"]
        assert 100 * (kept[place(row)] == labels).mean() == pytest.approx(row["value"])


def test_experiment_and_floor_share_settings_and_conditions(finished):
    paths, _ = finished
    mine, its = (json.loads(paths.rows(name, 0, "lowlabel").read_text())["rows"] for name in ("simclr", "random"))
    for a, b in zip(mine, its, strict=True):
        assert [a[key] for key in ("settings", "condition", "draw", "split", "data", "code", "n")] == [
            b[key] for key in ("settings", "condition", "draw", "split", "data", "code", "n")
        ]
        assert (a["chosen"]["start"], b["chosen"]["start"]) == ("pretrained", "scratch")


def test_twice_the_same_bytes(finished, copied):
    paths, _ = finished
    again = copied(paths)
    for protocol in FAST:
        for file in (again.rows, again.predictions):
            file("simclr", 0, protocol).unlink()
        run(again, protocol)
        for file in ("rows", "predictions"):
            first, second = (getattr(p, file)("simclr", 0, protocol).read_bytes() for p in (paths, again))
            assert first == second


def test_other_settings_other_hash(finished, copied):
    paths, _ = finished
    again = copied(paths)
    settings = yaml.safe_load(again.params.read_text())
    settings["evaluate"]["lowlabel"]["scratch"]["steps"] = [9]  # not even used by simclr
    again.params.write_text(yaml.safe_dump(settings))
    run(again, "lowlabel")
    before, after = (json.loads(p.rows("simclr", 0, "lowlabel").read_text())["rows"] for p in (paths, again))
    assert before[0]["settings"] != after[0]["settings"]
    assert before[0]["value"] == after[0]["value"]


def test_the_command_writes_the_same(finished, copied, monkeypatch, tmp_path):
    paths, _ = finished
    again = copied(paths)
    again.rows("simclr", 0, "lowlabel").unlink()
    monkeypatch.chdir(again.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    main(["finetune", "simclr", "0", "lowlabel"])
    first, second = (p.rows("simclr", 0, "lowlabel").read_bytes() for p in (paths, again))
    assert first == second


def test_no_encoder_is_one_line(ready, copied):
    paths = copied(ready)
    (paths.run("simclr", 0) / "encoder.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot load .*encoder\.safetensors: .*run `dvc repro`") as error:
        run(paths, "lowlabel")
    assert "\n" not in str(error.value)


def test_data_that_no_classifier_can_learn_is_one_line(ready, copied, capsys):
    paths = copied(ready)
    manifest = json.loads(paths.manifest("other").read_text())
    several = {split: [[0, 1]] for split in ("train", "val", "test")}
    paths.manifest("other").write_text(json.dumps({**manifest, "several_labels": several}))
    reason = r"transfer does not apply to datasets\.other: an image has several labels"
    with pytest.raises(UserError, match=rf"finetune\.protocols: {reason}; take transfer off the list"):
        run(paths, "transfer")
    assert capsys.readouterr().err.startswith("miyagi: note: transfer does not apply to datasets.other")


def test_images_that_are_too_small_name_their_data_set(ready, copied):
    paths = copied(ready)
    manifest = json.loads(paths.manifest("other").read_text())
    paths.manifest("other").write_text(json.dumps({**manifest, "size": 12}))
    with pytest.raises(UserError, match=r"datasets\.other\.size: 12 pixels, but conv4 takes at least 16"):
        run(paths, "transfer")
