import yaml

from miyagi.paths import Paths
from miyagi.report.dag import read
from miyagi.tracking import durations

LOCK = {
    "prepare@d": {"outs": [{"path": "data/betons/d/train.beton"}, {"path": "data/betons/d/manifest.json"}]},
    "sweep@a": {"deps": [{"path": "ssl/miyagi/x.py"}], "outs": [{"path": "runs/a/experiment.yaml"}]},
    "pretrain@a-0": {
        "deps": [{"path": "runs/a/experiment.yaml"}, {"path": "data/betons/d/train.beton"}],
        "outs": [{"path": "runs/a/0/encoder.safetensors"}],
    },
    "embed@a-0-d": {
        "deps": [{"path": "runs/a/0/encoder.safetensors"}, {"path": "data/betons/d"}],
        "outs": [{"path": "runs/a/0/features/d.safetensors"}],
    },
    "probe@a-0-knn": {"deps": [{"path": "runs/a/0/features"}], "outs": [{"path": "runs/a/0/knn.json"}]},
}


def test_stages_stand_in_the_order_of_the_work():
    found = read(yaml.safe_dump({"stages": LOCK}), {})
    assert list(found.columns)[2:] == ["pretrain", "embed", "probe", "report"]
    assert set(list(found.columns)[:2]) == {"prepare", "sweep"}


def test_a_line_for_what_is_needed_directly():
    """embed needs the betons too, but they reach it by way of pretrain already; so does `runs` the report."""
    assert read(yaml.safe_dump({"stages": LOCK}), {}).edges == [
        ("embed@a-0-d", "probe@a-0-knn"),
        ("prepare@d", "pretrain@a-0"),
        ("pretrain@a-0", "embed@a-0-d"),
        ("probe@a-0-knn", "report"),
        ("sweep@a", "pretrain@a-0"),
    ]


def test_the_picture_says_what_ran_and_escapes_names():
    lock = {"stages": {**LOCK, "prepare@<b>": {"outs": []}}}
    svg = read(yaml.safe_dump(lock), {"pretrain@a-0": 62.4, "sweep@a": 0.2}).svg()
    assert "pretrain@a-0: 62.4 s" in svg and ">62 s<" in svg and ">&lt; 1 s<" in svg
    assert svg.count('class="ran"') == 2 and svg.count('class="restored"') == 5
    assert svg.count("<path") == 5
    assert "<b>" not in svg and "&lt;b&gt;" in svg


def test_the_table_names_every_stage_in_full():
    found = read(yaml.safe_dump({"stages": LOCK}), {"pretrain@a-0": 62.4}).table()
    assert ("pretrain@a-0", "62.4 s") in found and ("report", "not run here, or not to its end") in found
    assert sorted(name for name, _ in found) == sorted([*LOCK, "report"])


def test_durations_are_those_of_the_last_run(tmp_path):
    paths = Paths(tmp_path)
    assert durations.read(paths) == {}
    durations.keep(paths, "pretrain", "a-0", 5.0)
    durations.keep(paths, "pretrain", "a-0", 7.25)
    durations.keep(paths, "report", "report", 1.0)
    (paths.scratch / "durations" / "embed@x").write_text("soon")
    assert durations.read(paths) == {"pretrain@a-0": 7.25, "report": 1.0}
