"""The stage on a small real project: all outs, equal bytes, and a short-cut only for the very same training."""

import csv
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.rng import fold
from miyagi.errors import UserError
from miyagi.nn.encoders.base import build
from miyagi.stages import pretrain
from miyagi.stages.pretrain import COLUMNS, OUTS, as_csv, finished, identity
from miyagi.train.weights import about


def outs(paths, name, seed=0):
    return {out: (paths.run(name, seed) / out).read_bytes() for out in OUTS}


def test_all_outs(trained):
    for name in ("random", "simclr"):
        assert {file.name for file in trained.run(name, 0).iterdir() if file.is_file()} == set(OUTS)
        described = yaml.safe_load(trained.experiment(name).read_text())
        for part in ("encoder", "head"):
            kept = about(trained.run(name, 0) / f"{part}.safetensors")
            assert kept == {"experiment": described, "classes": 10, "size": 32}
        assert json.loads((trained.run(name, 0) / "run.json").read_text()) == identity(name, 0, trained)
    assert list((trained.scratch / "train").glob("*/")) == []  # nothing is left to resume


def test_history(trained):
    rows = list(csv.DictReader((trained.run("simclr", 0) / "history.csv").open()))
    assert list(rows[0]) == [*COLUMNS, "accuracy"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(value) >= 0 for row in rows for value in row.values())
    assert (trained.run("random", 0) / "history.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_csv_of_figures_that_are_not_always_there():
    history = [
        {"epoch": 1, "lr": 0.1, "loss": 2.0, "b": 1.0, "a": 0.5},
        {"epoch": 2, "lr": 0.0, "loss": 1.0, "knn": 50.0},
    ]
    assert as_csv(history) == "epoch,loss,lr,knn,std,rank,a,b\n1,2.0,0.1,,,,0.5,1.0\n2,1.0,0.0,50.0,,,,\n"


def test_twice_the_same_bytes_and_the_last_row(trained, project, copied):
    paths, seen = copied(project), []
    last = pretrain.run("simclr", 0, paths, lambda row, rate: seen.append(row))
    assert outs(paths, "simclr") == outs(trained, "simclr")
    assert [row["epoch"] for row in seen] == [1, 2] and seen[-1] == last


def test_interrupted_and_run_again(trained, project, copied, capsys):
    paths = copied(project)

    def stop(row, rate):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain.run("simclr", 0, paths, stop)
    assert not paths.run("simclr", 0).exists()  # no out of half a training
    pretrain.run("simclr", 0, paths)
    assert "resuming after epoch 1 of 2" in capsys.readouterr().err
    assert outs(paths, "simclr") == outs(trained, "simclr")


def test_the_random_floor_is_the_initialisation_that_every_method_starts_from(trained):
    info = data_info(read_manifest(trained.manifest("digits")))
    torch.manual_seed(fold(0, "init") >> 1)
    fresh = build({"name": "conv4", "width": 8, "grid": 2}, info.mean, info.std).state_dict()
    kept, learned = (load_file(trained.run(name, 0) / "encoder.safetensors") for name in ("random", "simclr"))
    assert kept.keys() == fresh.keys() == learned.keys()
    assert all(torch.equal(kept[name], fresh[name]) for name in fresh)
    assert not torch.equal(kept["blocks.conv1.0.weight"], learned["blocks.conv1.0.weight"])


def test_what_the_fingerprint_depends_on(project, copied):
    paths = copied(project)

    def fingerprint(name="simclr", seed=0):
        return identity(name, seed, paths)["fingerprint"]

    first = fingerprint()
    assert first == fingerprint() == identity("simclr", 0, project)["fingerprint"]
    assert fingerprint(seed=1) != first
    shutil.copytree(paths.experiment("simclr").parent, paths.experiment("renamed").parent)
    assert fingerprint("renamed") == first

    original = paths.experiment("simclr").read_text()
    described = yaml.safe_load(original)
    for section, change in (
        ("runtime", {"threads": 1}),
        ("runtime", {"precision": "bf16"}),
        ("settings", {"temperature": 0.3}),
    ):
        paths.experiment("simclr").write_text(yaml.safe_dump(described | {section: described[section] | change}))
        assert fingerprint() != first, change
    paths.experiment("simclr").write_text(original)

    manifest = json.loads(paths.manifest("digits").read_text())
    paths.manifest("digits").write_text(json.dumps(manifest | {"notes": ["a remark"]}))
    assert fingerprint() == first
    manifest["betons"]["val"] = "0" * 64
    paths.manifest("digits").write_text(json.dumps(manifest))
    assert fingerprint() != first


def test_a_finished_training_is_taken_as_it_is(trained, copied):
    paths = copied(trained)
    encoder = paths.run("random", 0) / "encoder.safetensors"
    encoder.write_bytes(b"mark")
    assert pretrain.run("random", 0, paths) == {}
    assert encoder.read_bytes() == b"mark"


@pytest.mark.parametrize("change", ["fingerprint", "code", "missing", "no run.json"])
def test_anything_else_is_trained(trained, copied, change):
    paths = copied(trained)
    folder, expected = paths.run("random", 0), outs(trained, "random")
    said = json.loads((folder / "run.json").read_text())
    (folder / "encoder.safetensors").write_bytes(b"mark")
    if change == "missing":
        (folder / "history.csv").unlink()
    elif change == "no run.json":
        (folder / "run.json").unlink()
    else:
        (folder / "run.json").write_text(json.dumps(said | {change: "0" * 16}, sort_keys=True, indent=1) + "\n")
    assert not finished(folder, said)
    pretrain.run("random", 0, paths)
    assert outs(paths, "random") == expected


@pytest.mark.parametrize("content", [None, "method: simclr\n", pytest.param("a: ["), "- 1\n"])
def test_a_missing_or_broken_description_is_named(project, copied, content):
    paths = copied(project)
    paths.experiment("simclr").unlink()
    if content is not None:
        paths.experiment("simclr").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*experiment\.yaml: .*run `dvc repro`"):
        pretrain.run("simclr", 0, paths)
