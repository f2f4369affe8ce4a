"""The tiny project of part (e), and how its imports are counted."""

import yaml

from benchmarks.settings import ROOT
from benchmarks.stages import cut, import_seconds
from miyagi import params


def test_import_seconds():
    said = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       250 |        250 |   _io\n"
        "some other line\n"
        "import time:   1000750 |    1001000 | torch\n"
    )
    assert import_seconds(said) == 1.001


def test_the_shipped_params_can_be_cut(tmp_path):
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(cut(shipped, ["random", "simclr"])))
    read = params.read(tmp_path / "params.yaml")
    assert set(read.experiments) == {"random", "simclr"}
    assert {dataset.train_limit for dataset in read.datasets.values()} == {256}
    assert read.experiment("simclr").pretrain.epochs == 1


def test_protocols_that_train_take_few_steps():
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    shipped["evaluate"]["lowlabel"] = {"fractions": [0.1], "scratch": {"lr": [0.1], "steps": [200, 400]}}
    found = cut(shipped, ["random", "simclr"])["evaluate"]["lowlabel"]
    assert found == {"fractions": [0.1], "scratch": {"lr": [0.1], "steps": [5]}}


def test_sections_that_list_experiments_are_cut_too():
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    shipped["finetune"] = {"experiments": ["supervised", "simclr"], "protocols": ["lowlabel"]}
    found = cut(shipped, ["random", "simclr"])["finetune"]
    assert found == {"experiments": ["simclr"], "protocols": ["lowlabel"]}
