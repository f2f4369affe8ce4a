"""Crops without labels through the stages: trained on, embedded, and refused where labels are needed."""

import csv
import shutil

import pytest
import yaml

from miyagi import params
from miyagi.errors import UserError
from miyagi.paths import Paths
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
        embed.run("simclr", 0, dataset, Embed(tap_dimensions=16), paths)
    return paths


def test_the_history_shows_no_accuracy_that_means_nothing(ready):
    rows = list(csv.DictReader((ready.run("simclr", 0) / "history.csv").open()))
    assert [row["knn"] for row in rows] == ["", ""]
    assert all(float(row["loss"]) > 0 and float(row["std"]) > 0 for row in rows)


def test_probes_look_at_the_other_data_sets(ready, capsys):
    read = params.read(ready.params)
    found = probe.run("simclr", 0, "knn", list(read.datasets), read.protocol("knn"), ready)
    assert {key.split(".")[0] for key in found} == {"digits"}
    assert "knn does not apply to datasets.china: its images have no labels to tell apart" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["probe", "finetune"])
def test_no_data_set_with_labels_is_one_line(ready, family):
    read = params.read(ready.params)
    with pytest.raises(UserError, match=rf"{family}\.protocols: .* its images have no labels to tell apart") as error:
        if family == "probe":
            probe.run("simclr", 0, "knn", ["china"], read.protocol("knn"), ready)
        else:
            finetune.run("simclr", 0, "lowlabel", ["china"], read.protocol("lowlabel", "finetune"), ready)
    assert "\n" not in str(error.value)


def test_the_supervised_floor_refuses(ready):
    with pytest.raises(UserError, match="supervised learns from labels, but the training images have none") as error:
        pretrain.run("supervised", 0, ready)
    assert "\n" not in str(error.value)
