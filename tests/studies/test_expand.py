"""Grids and arms, by hand; and that every shipped study is a valid params.yaml within its number of stages."""

from pathlib import Path

import pytest
import yaml

from miyagi import params
from miyagi.errors import UserError
from miyagi.files import digest
from miyagi.paths import Paths
from miyagi.report.studies import read
from miyagi.studies import expand, findings, settings

ROOT = Path(__file__).parents[2]
SHIPPED = settings.names(Paths(ROOT))


def study(**changes):
    """A study of digits with a grid of two temperatures."""
    base = {
        "finding": 1, "claim": "A beats B.", "source": "nobody", "n": 200,
        "measure": {"protocol": "knn", "dataset": "digits"},
        "comparisons": {"it": {"form": "difference", "test": "t", "plus": ["tau_0_5"], "minus": ["random"], "minimum": 1.0}},
        "params": {
            "dataset": "digits", "datasets": {"digits": {"source": "digits", "path": "x"}}, "seeds": [0, 1],
            "encoder": {"name": "conv4", "width": 8}, "augment": {}, "pretrain": {},
            "experiments": {"random": {"method": "random"}, "tau": {"method": "simclr", "vary": {"temperature": [0.1, 0.5]}}},
            "embed": {}, "probe": {"protocols": ["knn"]}, "evaluate": {"knn": {"k": 5}},
        },
    }  # fmt: skip
    return settings.parsed(yaml.safe_dump(base | changes, sort_keys=False), "it.yaml")


BASE = {
    "runtime": {"threads": 2},
    "dataset": "mine",
    "finetune": {"experiments": ["simclr"], "protocols": ["lowlabel"]},
    "evaluate": {},
    "tracking": {"experiment": "mine"},
}


def test_a_list_of_values_becomes_experiments():
    found, grids = expand.experiments({
        "random": {"method": "random"},
        "tau": {"method": "simclr", "recipe": "weak", "vary": {"temperature": [0.05, 10.0]}},
    })  # fmt: skip
    assert found == {
        "random": {"method": "random"},
        "tau_0_05": {"method": "simclr", "recipe": "weak", "temperature": 0.05},
        "tau_10_0": {"method": "simclr", "recipe": "weak", "temperature": 10.0},
    }
    assert grids == {"tau": expand.Grid({"tau_0_05": 0.05, "tau_10_0": 10.0})}


def test_two_lists_are_every_combination_and_a_dotted_key_reaches_in():
    found, _ = expand.experiments({
        "h": {"method": "simclr", "head": {"width": 8}, "vary": {"head.kind": ["mlp", "none"], "l2_normalize": [True, False]}}
    })  # fmt: skip
    assert list(found) == ["h_mlp_true", "h_mlp_false", "h_none_true", "h_none_false"]
    assert found["h_none_true"] == {"method": "simclr", "head": {"width": 8, "kind": "none"}, "l2_normalize": True}


def test_pairs_are_each_alone_and_every_two():
    found, grids = expand.experiments({
        "op": {"method": "simclr", "pairs": {"a": {"augment": {"flip": 0.5}}, "b": {"augment": {"gray": 0.2}}, "c": {}}}
    })  # fmt: skip
    assert list(found) == ["op_a", "op_b", "op_c", "op_a_b", "op_a_c", "op_b_c"]
    assert found["op_a_b"] == {"method": "simclr", "augment": {"flip": 0.5, "gray": 0.2}}
    assert grids["op"].values["op_b_c"] == ("b", "c")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": {"vary": {"x": []}}}, "a.vary: give each key a list"),
        ({"a": {"vary": {"x": 1}}}, "a.vary: give each key a list"),
        ({"a": {"pairs": {"x": {}}}}, "two named changes"),
        ({"a": 3}, "expected settings"),
        ({"a": {"vary": {"x": [1]}}, "a_1": {}}, "two experiments would be called a_1"),
    ],
)
def test_what_is_no_grid(entries, message):
    with pytest.raises(UserError, match=message):
        expand.experiments(entries)


def test_a_study_stands_instead_of_the_users_sections():
    found = expand.expand(study(), BASE)["main"]
    assert found["dataset"] == "digits"
    assert (found["runtime"], found["tracking"]) == (BASE["runtime"], BASE["tracking"])
    assert found["finetune"] == {"experiments": [], "protocols": []}
    assert list(found["experiments"]) == ["random", "tau_0_1", "tau_0_5"]


def test_what_a_study_says_of_a_kept_section_leaves_its_other_keys():
    given = study()
    base = {**BASE, "runtime": {"threads": 2, "processes": 1}}
    changed = study(params={**given.params, "runtime": {"threads": 1}})
    assert expand.expand(changed, base)["main"]["runtime"] == {"threads": 1, "processes": 1}


def test_an_arm_changes_what_experiments_cannot():
    both = expand.expand(study(arms={"few": {"datasets": {"digits": {"train_limit": 100}}}, "all": {}}), BASE)
    assert both["few"]["datasets"]["digits"] == {"source": "digits", "path": "x", "train_limit": 100}
    assert both["all"]["datasets"]["digits"] == {"source": "digits", "path": "x"}


def test_a_section_that_decides_must_be_there():
    whole = study().params
    with pytest.raises(UserError, match=r"params.embed: missing; a study states all that decides"):
        expand.expand(study(params={key: value for key, value in whole.items() if key != "embed"}), BASE)


def test_stages_are_counted_by_hand():
    # prepare 1, sweep 3, and for 2 seeds x 3 experiments: pretrain, embed, knn
    assert expand.count(expand.expand(study(), BASE)["main"]) == 1 + 3 + 2 * 3 * 3
    tuned = study(params={**study().params, "finetune": {"experiments": ["random"], "protocols": ["lowlabel"]}})
    assert expand.count(expand.expand(tuned, BASE)["main"]) == 1 + 3 + 2 * 3 * 3 + 2


def test_too_many_stages_are_refused():
    small = study(stages=21)
    with pytest.raises(UserError, match="the study has 22 stages, more than the 21"):
        expand.check(small, expand.expand(small, BASE))
    with pytest.raises(UserError, match="stages"):
        study(stages=251)


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        ({"form": "difference", "test": "t", "plus": ["tau_0_6"], "minus": ["random"], "minimum": 1.0}, "did you mean 'tau_0_5'"),
        ({"form": "peak_between", "test": "t", "over": "taus", "low": 0.1, "high": 0.2, "minimum": 1.0}, "did you mean 'tau'"),
        ({"form": "difference", "test": "t", "plus": [{"experiment": "random", "arm": "x"}], "minus": ["random"], "minimum": 1.0}, "no arm 'x'"),
    ],
)  # fmt: skip
def test_a_comparison_of_what_is_not_there(comparison, message):
    wrong = study(comparisons={"it": comparison})
    with pytest.raises(UserError, match=message):
        expand.check(wrong, expand.expand(wrong, BASE))


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        ({"form": "difference", "test": "bootstrap", "plus": ["a"], "minus": ["b"], "minimum": 1.0}, "test"),
        ({"form": "difference", "test": "t", "plus": ["a"], "minus": ["b"], "minimum": 0.0}, "minimum"),
        ({"form": "difference", "test": "t", "plus": ["a"], "minus": ["b", "c"], "minimum": 1.0}, "levels would not cancel"),
        ({"form": "trend", "test": "t", "direction": "up", "minimum": 1.0}, "give one of them"),
        ({"form": "kendall", "test": "bootstrap", "a": list("abcd"), "b": list("abcd")}, "at_least or at_most"),
        ({"form": "kendall", "test": "bootstrap", "a": list("abc"), "b": list("abc"), "at_least": 0.5}, "four at least"),
        ({"form": "guess"}, "guess"),
    ],
)  # fmt: skip
def test_what_a_study_cannot_say(comparison, message):
    with pytest.raises(UserError, match=f"^studies/it.yaml: .*{message}"):
        study(comparisons={"it": comparison})


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(UserError, match="studies: there is no 'temprature'; did you mean 'temperature'"):
        settings.read("temprature", Paths(ROOT))


def test_every_finding_of_the_tutorial_has_a_study():
    assert [settings.read(name, Paths(ROOT)).finding for name in SHIPPED] == list(range(1, 13))


def test_the_verdicts_are_on_the_studies_as_they_stand():
    """And the page's table and the report's file are one; otherwise: miyagi study run NAME, miyagi study verdict --all."""
    found = read(Paths(ROOT).verdicts.read_text(encoding="utf-8"))
    assert {v.name: v.text for v in found} == {name: digest(settings.text(name, Paths(ROOT))) for name in SHIPPED}
    assert findings.table(found) in (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_can_run(name, tmp_path):
    shipped = settings.read(name, Paths(ROOT))
    expanded = expand.expand(shipped, params.load(ROOT / "params.yaml"))
    expand.check(shipped, expanded)
    for arm, values in expanded.items():
        (tmp_path / f"{arm}.yaml").write_text(yaml.safe_dump(values))
        params.read(tmp_path / f"{arm}.yaml")
    assert shipped.stages <= 150 or name == "augmentation"
    assert shipped.measure.dataset in shipped.params["datasets"]
