"""Rows with every stamp, and nothing in them that the predictions do not say."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from miyagi import params
from miyagi.data.manifest import data_digest, read_manifest
from miyagi.protocols.base import Bank
from miyagi.stages import probe

STAMPS = {
    "experiment", "method", "protocol", "settings", "dataset", "split", "layer", "dimensions", "metric", "value", "low", "high",
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
    import shutil

    from miyagi.paths import Paths

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
        assert None not in row.values()
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


WITHOUT_TORCH = """
import sys
from pathlib import Path
from miyagi import params
from miyagi.paths import Paths
from miyagi.stages import probe
paths = Paths(Path(sys.argv[1]))
for protocol in ("knn", "linear"):
    probe.run("simclr", 0, protocol, ["digits"], params.read(paths.params).protocol(protocol), paths)
assert "torch" not in sys.modules and "ffcv" not in sys.modules
"""


def test_it_needs_no_torch(trained, copied):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(copied(trained).root)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
