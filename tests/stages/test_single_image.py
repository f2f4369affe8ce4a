"""Crops without labels through the stages: trained on, embedded, and refused where labels are needed."""

import csv
import shutil

import pytest
import yaml

from miyagi import params
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.registry import PROTOCOLS
from miyagi.settings import Embed
from miyagi.stages import embed, finetune, prepare, pretrain, probe, sweep


@pytest.fixture(scope="module")
def ready(project, tmp_path_factory):
    """The small project, with simclr trained on crops of china.jpg and its features of them and of the digits."""
    paths = Paths(tmp_path_factory.mktemp("single") / "project")
    shutil.copytree(project.root, paths.root)
    settings = yaml.safe_load(paths.params.read_text())
    settings["dataset"] = "china"
    settings["datasets"]["china"] = {
        "source": "single_image", "path": "single_image.py", "size": 32, "train_limit": 128, "test_limit": 20,
    }  # fmt: skip
    settings["experiments"]["supervised"] = {"method": "supervised"}
    paths.params.write_text(yaml.safe_dump(settings))
    read = params.read(paths.params)
    prepare.run("china", read.datasets["china"], paths)
    for name in read.experiments:
        sweep.run(name, read, paths)
    pretrain.run("simclr", 0, paths)
    for dataset in read.datasets:
        embed.run("simclr", 0, dataset, Embed(tap_dimensions=16, transforms=["rotation"], transform_images=20), paths)
    return paths


def test_the_history_shows_no_accuracy_that_means_nothing(ready):
    rows = list(csv.DictReader((ready.run("simclr", 0) / "history.csv").open()))
    assert [row["knn"] for row in rows] == ["", ""]
    assert all(float(row["loss"]) > 0 and float(row["std"]) > 0 for row in rows)


PROBES = {
    "knn": {"k": 5},
    "linear": {"c": [0.1], "max_iterations": 20},
    "svm": {"c": [1.0]},
    "layers": {"c": [0.1], "max_iterations": 20},
    "fewshot": {"queries": 5, "episodes": 20},
}
"""Protocols that tell classes apart, quick ones: nothing of theirs can be asked of crops of one class."""
OTHERS = {"invariance": {"epochs": 1}, "ood": {"k": 5}}
"""Protocols that tell something else apart."""


def settings(name):
    return PROTOCOLS.settings(name)(**{**PROBES, **OTHERS}[name])


def test_every_probe_is_looked_at():
    assert PROBES.keys() | OTHERS.keys() == {
        name for name, entry in PROTOCOLS.entries.items() if entry.family == "probe"
    }


@pytest.mark.parametrize("name", [*PROBES, *OTHERS])
def test_probes_look_at_the_other_data_sets(ready, capsys, name):
    found = probe.run("simclr", 0, name, ["china", "digits"], settings(name), ready)
    assert {key.split(".")[0] for key in found} == ({"digits"} if name in PROBES else {"china", "digits"})
    notes = capsys.readouterr().err.splitlines()
    assert [note.startswith(f"miyagi: note: {name} does not apply to datasets.china: ") for note in notes] == (
        [True] if name in PROBES else []
    )


@pytest.mark.parametrize("name", PROBES)
def test_no_data_set_with_labels_is_one_line(ready, name):
    reason = "evaluate.fewshot.ways: 5 ways" if name == "fewshot" else "its images have no labels to tell apart"
    with pytest.raises(UserError, match=rf"probe\.protocols: {name} .* {reason}.*; take {name} off") as error:
        probe.run("simclr", 0, name, ["china"], settings(name), ready)
    assert "\n" not in str(error.value)


def test_nor_can_an_encoder_be_trained_on_them(ready):
    read = params.read(ready.params)
    with pytest.raises(UserError, match=r"finetune\.protocols: .* its images have no labels to tell apart") as error:
        finetune.run("simclr", 0, "lowlabel", ["china"], read.protocol("lowlabel", "finetune"), ready)
    assert "\n" not in str(error.value)


def test_the_supervised_floor_refuses(ready):
    with pytest.raises(UserError, match="supervised learns from labels, but the training images have none") as error:
        pretrain.run("supervised", 0, ready)
    assert "\n" not in str(error.value)
