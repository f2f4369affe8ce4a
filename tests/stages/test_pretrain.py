"""The stage on a small real project: all outs, equal bytes, and a short-cut only for the very same training."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image

from miyagi.data.decode import Beton, read_images
from miyagi.data.manifest import data_info, read_manifest
from miyagi.data.rng import fold
from miyagi.errors import UserError
from miyagi.methods import colorization
from miyagi.methods.dino import Settings
from miyagi.nn.encoders.base import build
from miyagi.report import asked
from miyagi.settings import Dataset, Embed, Head
from miyagi.stages import embed, prepare, pretrain
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


def test_what_the_network_was_asked(trained):
    shown = asked.read(trained.asked("simclr", 0))
    assert shown.columns == ["stored", "first, draw 1", "second, draw 1", "first, draw 2", "second, draw 2"]
    stored, _ = read_images(trained.beton("digits", "train"), range(6))
    assert all(np.array_equal(row[0], image) for row, image in zip(shown.rows, stored, strict=True))
    assert asked.read(trained.asked("random", 0)).rows == []  # the floor was asked nothing


def test_a_method_that_learns_from_colours_refuses_grey_data(project, copied):
    paths = copied(project)
    described = yaml.safe_load(paths.experiment("simclr").read_text())
    settings = colorization.Settings().model_dump(mode="json")
    paths.experiment("simclr").write_text(yaml.safe_dump(described | {"method": "colorization", "settings": settings}))
    with pytest.raises(UserError, match=r"^colorization learns from colours, but the training images are all grey"):
        pretrain.run("simclr", 0, paths)
    assert not paths.run("simclr", 0).exists()


def test_history(trained):
    rows = list(csv.DictReader((trained.run("simclr", 0) / "history.csv").open()))
    quantiles = [f"{kind}_q{level}" for kind in ("neg", "pos") for level in ("05", "25", "50", "75", "95")]
    assert list(rows[0]) == [*COLUMNS, "accuracy", "alignment", "mi_bound", *quantiles, "uniformity"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row[name]) >= 0 for row in rows for name in (*COLUMNS, "accuracy", "alignment"))
    assert all(-1 <= float(row[name]) <= 1 and float(row["uniformity"]) < 0 for row in rows for name in quantiles)
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


@pytest.mark.parametrize("keep", ["teacher", "student"])
def test_downstream_gets_what_the_method_keeps(trained, project, copied, keep):
    """A teacher that never follows is the untrained encoder, but for BatchNorm's statistics of what it saw."""
    paths = copied(project)
    described = yaml.safe_load(paths.experiment("simclr").read_text())
    settings = Settings(momentum=1.0, keep=keep, outputs=16, small=0, head=Head(width=16, out=16))
    entry = {"method": "dino", "settings": settings.model_dump(mode="json")}
    paths.experiment("simclr").write_text(yaml.safe_dump(described | entry))
    pretrain.run("simclr", 0, paths)
    first, last = (load_file(at.run(name, 0) / "encoder.safetensors") for at, name in
                   ((trained, "random"), (paths, "simclr")))  # fmt: skip
    same = [torch.equal(first[name], last[name]) for name in first if name.endswith(("weight", "bias"))]
    assert all(same) if keep == "teacher" else not any(same)
    assert not torch.equal(*(weights["blocks.conv1.1.running_mean"] for weights in (first, last)))


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


def test_images_of_many_shapes_from_the_folder_to_the_bank(project, copied):
    """Photographs as ImageNet has them: two classes, pieces of two pictures, each piece of its own shape."""
    paths = copied(project)
    rng = np.random.default_rng(0)
    for name in ("china", "flower"):
        (paths.root / "pics" / name).mkdir(parents=True)
        whole = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for i in range(40):
            left, top, width, height = rng.integers((0, 0, 150, 120), (300, 150, 300, 250)).tolist()
            whole.crop((left, top, left + width, top + height)).save(paths.root / "pics" / name / f"{i}.png")
    settings = Dataset(source="imagefolder", path="pics", size=32, shorter_side=48, jpeg_quality=80)
    prepare.run("shapes", settings, paths)
    assert Beton(paths.beton("shapes", "train")).side is None
    described = yaml.safe_load(paths.experiment("simclr").read_text()) | {"dataset": "shapes"}
    described["pretrain"] |= {"batch_size": 16}
    paths.experiment("simclr").write_text(yaml.safe_dump(described))
    row = pretrain.run("simclr", 0, paths)
    assert row["loss"] > 0 and row["std"] > 0
    once = outs(paths, "simclr")
    shutil.rmtree(paths.run("simclr", 0))
    pretrain.run("simclr", 0, paths)
    assert outs(paths, "simclr") == once
    embed.run("simclr", 0, "shapes", Embed(tap_dimensions=64, batch_size=7), paths)
    with safe_open(str(paths.bank("simclr", 0, "shapes")), framework="numpy") as bank:
        assert bank.get_tensor("test.encoder").shape == (16, 32)
        assert bank.get_tensor("test.encoder").std(0).max() > 0.001
