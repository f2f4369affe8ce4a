import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from miyagi.errors import UserError
from miyagi.params import merge, read
from miyagi.registry import ENCODERS, METHODS, PROTOCOLS, settings_of

ROOT = Path(__file__).parent.parent


@pytest.fixture
def edited(tmp_path):
    """Reads the shipped params.yaml after a change to it."""

    def edit(change):
        data = yaml.safe_load((ROOT / "params.yaml").read_text())
        change(data)
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(data))
        return read(file)

    return edit


def put(path, value):
    def change(data):
        *parents, last = path.split(".")
        for parent in parents:
            data = data[parent]
        data[last] = value

    return change


def test_the_shipped_file_is_valid():
    params = read(ROOT / "params.yaml")
    assert list(params.experiments) == ["random", "supervised", "rotation", "simclr", "moco", "simclr_tuned"]
    for name in params.experiments:
        params.experiment(name)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("pretrian", {}, "unknown key 'pretrian'; did you mean 'pretrain'?"),
        ("pretrain.batchsize", 3, "unknown key 'pretrain.batchsize'; did you mean 'batch_size'?"),
        ("pretrain.monitor.imags", 3, "unknown key 'pretrain.monitor.imags'; did you mean 'images'?"),
        ("datasets.fashion_mnist.train_limt", 3, "'datasets.fashion_mnist.train_limt'; did you mean 'train_limit'?"),
        ("evaluate.knn.kk", 3, "unknown key 'evaluate.knn.kk'; did you mean 'k'?"),
        ("experiments.simclr.temprature", 0.5, "'experiments.simclr.temprature'; did you mean 'temperature'?"),
        ("experiments.simclr.head", {"knd": "mlp"}, "'experiments.simclr.head.knd'; did you mean 'kind'?"),
        ("experiments.simclr.augment", {"jitter": {"hu": 0.1}}, "'experiments.simclr.augment.jitter.hu'; did you mean 'hue'?"),
        ("experiments.simclr.method", "simclrr", "experiments.simclr.method: there is no method 'simclrr'; did you mean 'simclr'?"),
        ("experiments.simclr.recipe", "simclr_smal", "there is no recipe 'simclr_smal'; did you mean 'simclr_small'?"),
        ("experiments.simclr", {"temperature": 1}, "experiments.simclr.method: every experiment names its method"),
        ("experiments.simclr.encoder", {"name": "resnet18", "width": 3}, "unknown key 'experiments.simclr.encoder.width'"),
        ("encoder.name", "conv5", "there is no encoder 'conv5'; did you mean 'conv4'?"),
        ("datasets.fashion_mnist.source", "mnist", "there is no source 'mnist'; did you mean 'fashion_mnist'?"),
        ("finetune.experiments", ["simclrr"], "finetune.experiments: 'simclrr' is not under experiments; did you mean 'simclr'?"),
        ("finetune.protocols", ["knn"], "finetune.protocols: 'knn' is a probe protocol, list it under probe.protocols"),
        ("finetune.protocols", ["lowlabel", "lowlabel"], "finetune.protocols names something twice"),
        ("finetune.protocols", ["adversarial"], "params.yaml: evaluate.adversarial: missing; `adversarial: {}` takes"),
        ("evaluate.transfer.datasets", ["digit"], "evaluate.transfer.datasets: there is no 'digit'; did you mean 'digits'?"),
        ("evaluate.lowlabel.fractions", [0.0], "params.yaml: evaluate.lowlabel.fractions.0: Input should be greater than 0"),
        ("evaluate.lowlabel.finetune", {"lrs": [0.1]}, "unknown key 'evaluate.lowlabel.finetune.lrs'; did you mean 'lr'?"),
        ("evaluate.lowlabel.optimization.recipe", "weka", "evaluate.lowlabel.optimization.recipe: there is no recipe 'weka'"),
        ("evaluate.lowlabel.optimization.augment", {"flp": 1.0}, "evaluate.lowlabel.optimization.augment.flp'; did you mean 'flip'?"),
        ("probe.protocols", ["knm"], "there is no protocol 'knm'; did you mean 'knn'?"),
        ("probe.protocols", ["knn", "lowlabel"], "probe.protocols: 'lowlabel' is a finetune protocol, list it under finetune.protocols; known here: knn, linear, "),
        ("probe.protocols", ["invariance"], "embed.transforms: is empty, but probe.protocols lists invariance, which needs it"),
        ("evaluate.fewshot.way", 5, "unknown key 'evaluate.fewshot.way'; did you mean 'ways'?"),
        ("evaluate.linear.sgd", {"rate": [1.0]}, "unknown key 'evaluate.linear.sgd.rate'; "),
        ("embed.transforms", ["blur"], "params.yaml: embed.transforms.0: Input should be 'rotation', 'gray', 'noise' or 'sobel'"),
        ("dataset", "cifar", "dataset 'cifar' is not under datasets"),
        ("pretrain.lr", "fast", "params.yaml: pretrain.lr: Input should be a valid number, got 'fast'"),
        ("pretrain.epochs", 2.5, "params.yaml: pretrain.epochs: Input should be a valid integer"),
        ("pretrain.epochs", "3", "params.yaml: pretrain.epochs: Input should be a valid integer, got '3'"),
        ("pretrain.warmup_epochs", 9, "params.yaml: pretrain: warmup_epochs 9.0 is longer than epochs 3"),
        ("pretrain.lr", -1, "params.yaml: pretrain.lr: Input should be greater than 0, got -1"),
        ("pretrain.accumulate", 3, "params.yaml: pretrain: batch_size 256 must be a multiple of runtime.processes 1 x accumulate 3"),
        ("runtime.processes", 3, ".pretrain: batch_size 256 must be a multiple of runtime.processes 3 x accumulate 1"),
        ("runtime.processes", 256, "runtime.processes 256 x accumulate 1, with 2 images or more each"),
        ("experiments.simclr.pretrain", {"accumulate": 5}, "experiments.simclr.pretrain: batch_size 256 must be a multiple of"),
        ("experiments.simclr.temperature", 0, "params.yaml: experiments.simclr.temperature: Input should be greater than 0"),
        ("seeds", [0, 0], "seeds names something twice"),
        ("seeds", [], "params.yaml: seeds: List should have at least 1 item"),
        ("experiments.my-run", {"method": "random"}, "experiments.my-run: String should match pattern"),
        ("augment", {"crop": {"scale": [0.9, 0.2]}}, "scale [0.9, 0.2] must be [low, high]"),
    ],
)  # fmt: skip
def test_one_line_names_the_key(edited, path, value, message):
    with pytest.raises(UserError) as error:
        edited(put(path, value))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_transfer_needs_another_data_set(edited):
    def change(data):
        del data["datasets"]["digits"]

    with pytest.raises(
        UserError, match="transfer looks at data sets other than the one pretrained on, 'fashion_mnist'"
    ):
        edited(change)


def test_targets(edited):
    params = edited(lambda data: None)
    assert (params.targets("lowlabel"), params.targets("transfer")) == (["fashion_mnist"], ["digits"])
    both = ["digits", "fashion_mnist"]
    assert edited(put("evaluate.lowlabel.datasets", both)).targets("lowlabel") == both


def test_yaml_mistakes(tmp_path):
    with pytest.raises(UserError, match="no params.yaml"):
        read(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(UserError, match=r"params.yaml line \d: not YAML"):
        read(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="params.yaml: params:"):
        read(tmp_path / "params.yaml")


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    text = (ROOT / "params.yaml").read_text().replace("lr: 0.002 ", "lr: 2e-3 ")
    (tmp_path / "params.yaml").write_text(text)
    assert read(tmp_path / "params.yaml").pretrain.lr == 0.002


def test_an_entry_overrides_the_shared_sections(edited):
    def change(data):
        data["augment"] = {"flip": 0.1}
        data["experiments"]["simclr"] |= {
            "pretrain": {"epochs": 7},
            "augment": {"jitter": None, "crop": {"scale": [0.5, 1.0]}},
            "encoder": {"width": 8},
        }
        data["experiments"]["deep"] = {"method": "simclr", "encoder": {"name": "resnet18", "stem": "imagenet"}}

    params = edited(change)
    simclr = params.experiment("simclr")
    assert (simclr.pretrain.epochs, simclr.pretrain.batch_size) == (7, 256)
    assert simclr.encoder == {"name": "conv4", "width": 8, "grid": 2, "fused": True}
    (view,) = simclr.views
    assert (view.flip, view.jitter, view.crop.scale, view.gray) == (0.1, None, (0.5, 1.0), 0.2)
    assert params.experiment("moco").pretrain.epochs == 3
    assert params.experiment("deep").encoder == {"name": "resnet18", "stem": "imagenet"}


def test_a_method_of_two_halves_gets_a_pair(edited):
    """Half the width each, so that there are as many channels in all; by hand it is whatever the entry says."""

    def change(data):
        resnet, own = {"name": "resnet18", "stem": "small"}, {"name": "conv4", "width": 5}
        data["experiments"] |= {
            "split": {"method": "split_brain"},
            "narrow": {"method": "split_brain", "encoder": {"width": 7}},
            "deep": {"method": "split_brain", "encoder": resnet},
            "by_hand": {"method": "split_brain", "encoder": {"name": "pair", "of": own}},
            "floor": {"method": "random", "encoder": {"name": "pair", "of": own}},
            "deep_floor": {"method": "random", "encoder": {"name": "pair", "of": resnet}},
        }

    params = edited(change)
    found = {name: params.experiment(name).encoder for name in params.experiments}
    conv4 = {"name": "conv4", "width": 64, "grid": 2, "fused": True}
    assert found["simclr"] == found["random"] == conv4
    assert found["split"] == {"name": "pair", "split": "lab", "of": conv4 | {"width": 32}}
    assert found["narrow"]["of"] == conv4 | {"width": 3}
    assert found["deep"]["of"] == {"name": "resnet18", "stem": "small"}
    assert found["by_hand"] == found["floor"] == {"name": "pair", "split": "lab", "of": conv4 | {"width": 5}}
    assert params.experiment("floor").code != params.experiment("deep_floor").code  # the halves' own code counts


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"name": "conv5"}, "experiments.simclr.encoder.of.name: there is no encoder 'conv5'; did you mean 'conv4'?"),
        ({"name": "conv4", "wdth": 3}, "unknown key 'experiments.simclr.encoder.of.wdth'; did you mean 'width'?"),
        ({"width": 3}, "experiments.simclr.encoder.of.name: name an encoder"),
        ({"name": "pair"}, "experiments.simclr.encoder: the halves of a pair cannot be pairs"),
    ],
)
def test_a_pair_s_halves_are_checked(edited, of, message):
    with pytest.raises(UserError) as error:
        edited(put("experiments.simclr.encoder", {"name": "pair", "of": of}))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_floor_does_not_know_of_training(edited):
    floor = edited(lambda data: None).experiment("random")
    assert floor.pretrain is None
    assert floor.views == []
    assert edited(put("pretrain.lr", 0.5)).experiment("random") == floor
    assert edited(put("pretrain.lr", 0.5)).experiment("simclr") != edited(lambda data: None).experiment("simclr")


def test_the_description_is_total(edited):
    simclr = edited(lambda data: None).experiment("simclr")
    model = METHODS.load("simclr").Settings
    assert simclr.settings.keys() == model.model_fields.keys()
    assert simclr.settings["head"].keys() == model.model_fields["head"].annotation.model_fields.keys()


def test_merge():
    assert merge({"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 3}, "e": None}) == {
        "a": {"b": 3, "c": 2},
        "d": 1,
        "e": None,
    }


@pytest.mark.parametrize("family", [METHODS, ENCODERS, PROTOCOLS])
def test_settings_read_without_their_file_are_the_files_own(family):
    for name in family.entries:
        read_alone, own = settings_of(family.file(name)), family.load(name).Settings
        assert read_alone is not own
        assert read_alone.model_json_schema() == own.model_json_schema()


def test_checking_imports_no_torch():
    code = "import sys, pathlib; from miyagi.params import read; read(pathlib.Path('params.yaml')); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_method_can_be_switched_on(edited):
    """Experiments that stand in comments, each by taking away what makes it one."""
    text = (ROOT / "params.yaml").read_text()
    section = text[text.index("\nexperiments:") : text.index("\nembed:")]
    shown = yaml.safe_load("\n".join(re.findall(r"^  # (\w+: \{.*)", section, re.MULTILINE)))
    params = edited(lambda data: data["experiments"].update(shown))
    assert {params.experiment(name).method for name in params.experiments} == set(METHODS.entries)
    for floor, of in (("random_vit", ["mae"]), ("random_pair", ["split_brain", "cmc"])):
        assert all(params.experiment(name).encoder == params.experiment(floor).encoder for name in of)


SCENES = {"source": "scenes", "of": "digits", "path": "ssl/miyagi/data/sources/digits.py"}


def test_what_the_comments_show_can_be_switched_on(edited):
    """The commented data sets, experiments and protocols of the dense family, taken from the shipped file's text."""
    text = (ROOT / "params.yaml").read_text()
    section = text[text.index("\ndense:") : text.index("\nevaluate:")]
    shown = "\n".join(line.replace("  #   ", "    ") for line in section.splitlines() if line.startswith("  #   "))
    lists = {key: yaml.safe_load(section.split(f"  {key}: []")[1].split("#")[1].splitlines()[0].split(";")[0].split(" or ")[0])
             for key in ("experiments", "protocols")}  # fmt: skip

    def change(data):
        assert data["dense"] == {"datasets": {}, "experiments": [], "protocols": []}
        data["dense"] = {"datasets": yaml.safe_load(shown), **lists}

    params = edited(change)
    assert set(params.dense.datasets) == {"scenes", "cells", "streets", "rooms"}
    for protocol in ("segmentation", "detection", "surface_normals"):
        assert params.scenes(protocol) == list(params.dense.datasets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": {"x": {"source": "digits", "path": "x"}}}, "dense.datasets.x.source: digits belongs under datasets"),
        ({"datasets": {"x": {**SCENES, "of": "voc"}}}, "dense.datasets.x.of: voc belongs under dense.datasets"),
        ({"datasets": {"x": {**SCENES, "of": "digit"}}}, "dense.datasets.x.of: there is no source 'digit'; did you mean 'digits'?"),
        ({"datasets": {"x": {"source": "scenes", "path": "x"}}}, "source scenes, and no other, names in `of` whose images"),
        ({"datasets": {"x": {"source": "voc", "path": "x", "of": "digits"}}}, "source scenes, and no other, names in `of`"),
        ({"datasets": {"x": {**SCENES, "scale": [0.5, 0.2]}}}, "scale [0.5, 0.2] must be [low, high]"),
        ({"datasets": {"x": {**SCENES, "shorter": 3}}}, "unknown key 'dense.datasets.x.shorter'; did you mean 'shorter_side'?"),
        ({"datasets": {"digits": SCENES}}, "'digits' is under datasets and under dense.datasets; rename one of them"),
        ({"experiments": ["simclrr"]}, "dense.experiments: 'simclrr' is not under experiments; did you mean 'simclr'?"),
        ({"protocols": ["segmentation"]}, "dense.protocols: segmentation has nothing to look at; add a data set"),
        ({"datasets": {"x": SCENES}, "protocols": ["knn"]}, "'knn' is a probe protocol, list it under probe.protocols; known here: segmentation"),
        ({"protocols": ["detection", "detection"]}, "dense.protocols names something twice"),
    ],
)  # fmt: skip
def test_dense_mistakes_are_one_line(edited, change, message):
    with pytest.raises(UserError) as error:
        edited(lambda data: data["dense"].update(change))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_annotated_source_is_no_data_set_of_labelled_images(edited):
    with pytest.raises(UserError, match=r"datasets\.x\.source: voc belongs under dense\.datasets: it gives annotated"):
        edited(put("datasets.x", {"source": "voc", "path": "x"}))


def test_a_dense_protocol_names_its_data_sets(edited):
    def change(data):
        data["dense"] |= {"datasets": {"one": SCENES, "two": SCENES}, "protocols": ["segmentation"]}
        data["evaluate"]["segmentation"]["datasets"] = ["two"]

    assert edited(change).scenes("segmentation") == ["two"]
    with pytest.raises(UserError, match=r"evaluate\.segmentation\.datasets: there is no 'two' under dense\.datasets"):
        edited(lambda data: (change(data), data["dense"]["datasets"].pop("two")))
