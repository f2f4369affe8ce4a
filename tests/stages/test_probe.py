"""Rows with every stamp, and nothing in them that the predictions do not say."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from miyagi import params
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.protocols.base import Bank
from miyagi.protocols.rows import place as place_of
from miyagi.registry import PROTOCOLS
from miyagi.stages import embed, prepare, probe

STAMPS = {
    "experiment", "method", "protocol", "settings", "dataset", "split", "layer", "dimensions", "metric", "condition", "draw", "value", "low", "high",
    "interval", "n", "seed", "selection", "chosen", "data", "code", "higher_is_better",
}  # fmt: skip
EXPECTED = {
    "knn": [(layer, split) for layer in ("encoder", "head", "conv1") for split in ("val", "test")],
    "linear": [("encoder", "val"), ("encoder", "test")],
}
N = {"val": 64, "test": 200}


def run(paths, protocol, name="simclr", **changes):
    settings = params.read(paths.params).protocol(protocol)
    return probe.run(name, 0, protocol, ["digits"], settings.model_copy(update=changes), paths)


@pytest.fixture(scope="module")
def probed(trained, tmp_path_factory):
    paths = Paths(tmp_path_factory.mktemp("probed") / "project")
    shutil.copytree(trained.root, paths.root)
    summaries = {protocol: run(paths, protocol) for protocol in EXPECTED}
    return paths, summaries


def read(paths, protocol):
    return json.loads(paths.rows("simclr", 0, protocol).read_text())


@pytest.mark.parametrize("protocol", EXPECTED)
def test_every_row_has_every_stamp(probed, protocol):
    paths, _ = probed
    rows = read(paths, protocol)["rows"]
    assert [(row["layer"], row["split"]) for row in rows] == EXPECTED[protocol]
    for row in rows:
        assert row.keys() == STAMPS
        assert [key for key, value in row.items() if value is None] == ["draw"]
        assert (row["experiment"], row["method"], row["protocol"], row["seed"]) == ("simclr", "simclr", protocol, 0)
        assert (row["dataset"], row["metric"], row["n"]) == ("digits", "top1", N[row["split"]])
        assert row["data"] == data_digest(read_manifest(paths.manifest("digits")))
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 100 and row["low"] < row["high"]
        assert row["selection"].endswith("best of 2 on val")
        assert len(row["settings"]) == len(row["code"]) == 16


@pytest.mark.parametrize("protocol", EXPECTED)
def test_the_summary_is_the_rows(probed, protocol):
    paths, summaries = probed
    found = read(paths, protocol)
    expected = {f"digits.{row['split']}.{row['layer']}.top1": row["value"] for row in found["rows"]}
    assert found["summary"] == expected == summaries[protocol]
    assert len(expected) == len(found["rows"])


@pytest.mark.parametrize("protocol", EXPECTED)
def test_the_predictions_give_the_values(probed, protocol):
    paths, _ = probed
    predictions = load_file(paths.predictions("simclr", 0, protocol))
    bank = Bank(paths.bank("simclr", 0, "digits"))
    rows = read(paths, protocol)["rows"]
    for row in rows:
        labels = predictions[f"digits.{row['split']}.labels"]
        hits = predictions[f"digits.{row['split']}.{row['layer']}"] == labels
        assert row["value"] == pytest.approx(100 * hits.mean())
        assert np.array_equal(labels, bank.split(row["split"], "encoder").y)
    assert len(predictions) == len(rows) + 2


@pytest.mark.parametrize("protocol", EXPECTED)
def test_twice_the_same_bytes(probed, trained, copied, protocol):
    paths, _ = probed
    again = copied(trained)
    run(again, protocol)
    for file in ("rows", "predictions"):
        first, second = (getattr(p, file)("simclr", 0, protocol).read_bytes() for p in (paths, again))
        assert first == second


def test_the_settings_digest_is_that_of_the_settings(probed, copied):
    paths, _ = probed
    again = copied(paths)
    run(again, "knn", temperature=0.2)
    before, after = ({row["settings"] for row in read(p, "knn")["rows"]} for p in (paths, again))
    assert len(before) == len(after) == 1 and before != after
    assert before != {row["settings"] for row in read(paths, "linear")["rows"]}
    code = {protocol: {row["code"] for row in read(paths, protocol)["rows"]} for protocol in EXPECTED}
    assert len(code["knn"]) == len(code["linear"]) == 1 and code["knn"] != code["linear"]


PROBES = [name for name, entry in PROTOCOLS.entries.items() if entry.family == "probe"]


@pytest.fixture(scope="module")
def two_sets(trained, tmp_path_factory):
    """simclr's banks of digits and of other digits, with transformed copies, and every probe listed."""
    paths = Paths(tmp_path_factory.mktemp("two_sets") / "project")
    shutil.copytree(trained.root, paths.root)
    data = yaml.safe_load(paths.params.read_text())
    data["datasets"]["mine"] = data["datasets"]["digits"] | {"split_seed": 1, "test_limit": 250}
    data["embed"] |= {"transforms": ["rotation"], "transform_images": 50}
    data["probe"]["protocols"] = PROBES
    data["evaluate"] |= {name: {} for name in PROBES if name not in data["evaluate"]}
    quick = {"c": [0.1], "max_iterations": 20}
    data["evaluate"] |= {
        "linear": quick | {"sgd": {"epochs": 2}}, "svm": {"c": [1.0]}, "layers": quick, "invariance": {"epochs": 1},
        "fewshot": {"episodes": 50, "queries": 5},
    }  # fmt: skip
    paths.params.write_text(yaml.safe_dump(data))
    read = params.read(paths.params)
    prepare.run("mine", read.datasets["mine"], paths)
    for dataset in read.datasets:
        embed.run("simclr", 0, dataset, read.embed, paths)
    return paths


WITHOUT_TORCH = """
import sys
from pathlib import Path
from miyagi import params
from miyagi.paths import Paths
from miyagi.stages import probe
paths, protocols = Paths(Path(sys.argv[1])), sys.argv[2:]
read = params.read(paths.params)
for protocol in protocols:
    probe.run("simclr", 0, protocol, list(read.datasets), read.protocol(protocol), paths)
assert "torch" not in sys.modules and "ffcv" not in sys.modules
"""


def test_no_probe_needs_torch_and_all_are_stamped_and_rerun_to_the_same_bytes(two_sets, copied):
    again, read = copied(two_sets), params.read(two_sets.params)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(two_sets.root), *PROBES], capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, "")
    for protocol in PROBES:
        probe.run("simclr", 0, protocol, list(read.datasets), read.protocol(protocol), again)
        files = [(p.rows("simclr", 0, protocol), p.predictions("simclr", 0, protocol)) for p in (two_sets, again)]
        for first, second in zip(*files, strict=True):
            assert first.read_bytes() == second.read_bytes(), protocol
        rows = json.loads(files[0][0].read_text())["rows"]
        assert {row["dataset"] for row in rows} == {"digits", "mine"}
        for row in rows:
            assert row.keys() == STAMPS
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 100
            assert row["dimensions"] in (32, 128) and row["n"] >= 50
        kept = load_file(files[0][1])
        for row in rows:
            place = f"{place_of(row)}.{row['metric']}.scores"
            if place in kept and row["metric"] == "top1":
                assert kept[place].mean() == pytest.approx(row["value"])
            elif row["metric"] == "top1":
                labels = kept[f"{row['dataset']}.{row['split']}.labels"]
                assert 100 * (kept[place_of(row)] == labels).mean() == pytest.approx(row["value"])


def test_a_data_set_that_a_protocol_does_not_apply_to_is_noted_and_the_others_are_evaluated(two_sets, copied, capsys):
    """The classes of `mine` are moved apart: nothing can be predicted there, and few-shot learning is on unseen ones."""
    paths = copied(two_sets)
    file = paths.bank("simclr", 0, "mine")
    stamp, arrays = Bank(file).stamp, load_file(file)
    arrays["test.labels"] += 10
    save_file(arrays, file, metadata={"miyagi": json.dumps(stamp | {"pretrained_on": "mine"})})
    read = params.read(paths.params)

    def rows(protocol, datasets):
        probe.run("simclr", 0, protocol, datasets, read.protocol(protocol), paths)
        return json.loads(paths.rows("simclr", 0, protocol).read_text())["rows"]

    assert {row["dataset"] for row in rows("knn", ["digits", "mine"])} == {"digits"}
    assert capsys.readouterr().err == (
        "miyagi: note: knn does not apply to datasets.mine: none of its test classes is among its training classes\n"
    )
    shots = rows("fewshot", ["digits", "mine"])
    assert {(row["dataset"], row["condition"]["classes"]) for row in shots} == {("digits", "seen"), ("mine", "unseen")}
    assert {row["interval"] for row in shots} == {"bootstrap over episodes, 95 %"}
    with pytest.raises(
        UserError, match=r"^probe\.protocols: knn does not apply to datasets\.mine: none .* take knn off"
    ):
        rows("knn", ["mine"])
    with pytest.raises(UserError, match=r"ood does not apply to datasets\.digits: there is no other data set"):
        rows("ood", ["digits"])
