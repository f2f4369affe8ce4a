import subprocess
import sys

import optuna
import pytest

from miyagi.errors import UserError
from miyagi.settings import Blur
from miyagi.sweep.space import Space, label
from tests.sweep.conftest import SPACE

T = {"low": 0.1, "high": 1.0}


def test_trial_0_is_the_experiment(space, tuned):
    found = space()
    assert found.defaults == {"temperature": 0.2, "head.kind": "mlp", "head.width": 256, "augment.blur": None}
    assert found.final(found.defaults) == tuned().experiment("simclr")


def test_a_trial_is_the_entry_with_changes(space):
    found = space().final({"temperature": 0.5, "head.kind": "linear", "augment.blur": {"p": 0.3}})
    assert (found.settings["temperature"], found.settings["head"]["kind"], found.settings["head"]["width"]) == (
        0.5,
        "linear",
        256,
    )
    assert found.views[0].blur == Blur(p=0.3)
    assert found.views[0].jitter is not None  # the rest of the recipe stays


def test_a_trial_trains_shorter_than_what_wins(space):
    found = space(objective={"epochs": 1, "metric": "rankme"})
    values = {**found.defaults, "temperature": 0.5}
    short, final = found.short(values).pretrain, found.final(values).pretrain
    assert (short.epochs, final.epochs) == (1, 2)
    assert (short.monitor.every, short.monitor.pairs, final.monitor.pairs) == (1, 0, 500)
    assert short.model_copy(update={"epochs": 2, "monitor": final.monitor}) == final
    assert space(objective={"train_limit": 50}).short(values).pretrain.monitor.images == 50 < final.monitor.images
    assert found.short(found.defaults).settings == found.final(found.defaults).settings


def test_conditions(space):
    """head.width exists only where head.kind is mlp; whatever order the file has."""
    found = space(space=dict(reversed(SPACE.items())))
    assert list(found.dimensions).index("head.kind") < list(found.dimensions).index("head.width")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    drawn = [found.suggest(study.ask()) for _ in range(40)]
    assert {values["head.kind"] for values in drawn} == {"linear", "mlp"}
    for values in drawn:
        assert ("head.width" in values) == (values["head.kind"] == "mlp")
        assert 0.05 <= values["temperature"] <= 1
        assert isinstance(values.get("head.width", 16), int) and 16 <= values.get("head.width", 16) <= 512
        assert values["augment.blur"] in (None, {"p": 0.5})
        found.final(values)


def test_steps_and_kinds(space):
    found = space(
        space={"temperature": {"low": 0.1, "high": 1, "step": 0.1}, "head.width": {"low": 64, "high": 512, "step": 64}}
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(20):
        values = found.suggest(study.ask())
        assert isinstance(values["temperature"], float) and round(10 * values["temperature"], 6) % 1 == 0
        assert values["head.width"] % 64 == 0


def test_a_grid_is_every_combination_once(space):
    dimensions = {
        "head.kind": {"choices": ["none", "linear", "mlp"]},
        "head.depth": {"low": 1, "high": 3, "when": {"head.kind": "mlp"}},
        "temperature": {"low": 0.2, "high": 0.4, "step": 0.1},
    }
    found = space(space=dimensions, sampler="grid", trials=100)
    # (none, linear, mlp with 3 depths) x 3 temperatures; one of them is trial 0
    assert len(found.points) == 5 * 3 - 1 and found.places == 15
    texts = [label(point) for point in [found.defaults, *found.points]]
    assert len(set(texts)) == 15
    assert space(space=dimensions, sampler="grid", trials=4).places == 4


def test_whole_section_before_what_stands_inside_it(space):
    dimensions = {
        "augment.blur.p": {"low": 0.1, "high": 0.9, "when": {"augment.blur": {"p": 0.5}}},
        "augment.blur": {"choices": [None, {"p": 0.5}]},
    }
    found = space(space=dimensions)
    assert found.final({"augment.blur": {"p": 0.5}, "augment.blur.p": 0.9}).views[0].blur == Blur(p=0.9)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"space": {"temprature": T}}, ".space: unknown key 'temprature'; did you mean 'temperature'?"),
        ({"space": {"head.widht": {"choices": [64]}}}, ".space: unknown key 'head.widht'; did you mean 'head.width'?"),
        ({"space": {"augment.jiter.hue": T}}, "unknown key 'augment.jiter.hue'; did you mean 'augment.jitter.hue'?"),
        ({"space": {"temperature": {"low": 0.0, "high": 1.0}}}, ".space.temperature: 0.0 cannot be: experiments.simclr.temperature: Input should be greater than 0"),
        ({"space": {"augment.flip": {"low": 0.0, "high": 1.5}}}, ".space.augment.flip: 1.5 cannot be: experiments.simclr.augment.flip: Input should be less than or equal to 1"),
        ({"space": {"head.width": {"low": 0.5, "high": 512}}}, ".space.head.width: 0.5 cannot be: experiments.simclr.head.width: Input should be a valid integer"),
        ({"space": {"head.kind": {"choices": ["mlp", "mpl"]}}}, ".space.head.kind: 'mpl' cannot be: experiments.simclr.head.kind: Input should be 'none', 'linear' or 'mlp'"),
        ({"space": {"head.kind": {"low": 1, "high": 2}}}, ".space.head.kind: 'mlp' is no number, so it needs choices"),
        ({"space": {"temperature": {"choices": []}}}, ".space.temperature.choices: List should have at least 1 item"),
        ({"space": {"temperature": {"choices": [0.2, 0.2]}}}, ".space.temperature: choices name something twice: 0.2, 0.2"),
        ({"space": {"temperature": {"low": 1.0, "high": 0.1}}}, ".space.temperature: low 1.0 is not below high 0.1"),
        ({"space": {"temperature": {"low": 0.1}}}, ".space.temperature: a dimension has low and high, or choices"),
        ({"space": {"temperature": {"low": 0, "high": 1, "log": True}}}, ".space.temperature: log needs low above 0"),
        ({"space": {"temperature": {**T, "log": True, "step": 0.1}}}, ".space.temperature: either log or step"),
        ({"space": {"temperature": {**T, "choices": [1]}}}, ".space.temperature: either choices, or low and high"),
        ({"space": {"temperature": {"low": 0.5, "high": 1.0}}}, ".space.temperature: 0.2, the experiment's own value and so trial 0's, is not between 0.5 and 1.0"),
        ({"space": {"temperature": {"low": 0.05, "high": 1.05, "step": 0.1}}}, ".space.temperature: 0.2, the experiment's own value and so trial 0's, is no multiple of 0.1 above 0.05; change low, step or the experiment"),
        ({"space": {"temperature": {"choices": [0.1, 0.3]}}}, ".space.temperature: 0.2, the experiment's own value and so trial 0's, is none of the choices"),
        ({"space": {"temperature": {**T, "when": {"head.kind": "mlp"}}}}, ".space.temperature.when: 'head.kind' is not in the space"),
        ({"space": {"temperature": T, "head.width": {"low": 16, "high": 512, "when": {"temperature": 0.2}}}}, "'temperature' is a range; a condition needs one with choices"),
        ({"space": {"head.kind": {"choices": ["mlp"]}, "head.width": {"low": 16, "high": 512, "when": {"head.kind": "none"}}}}, "'none' is none of the choices of 'head.kind'"),
        ({"space": {"head.kind": {"choices": ["mlp"], "when": {"loss": "nce"}}, "loss": {"choices": ["info_nce", "nce"], "when": {"head.kind": "mlp"}}}}, "the conditions of head.kind, loss depend on one another"),
        ({"space": {"temperature": T}, "sampler": "grid"}, ".space.temperature: a grid needs step or choices"),
        ({"space": {}}, ".sweep.space: Dictionary should have at least 1 item"),
        ({"spice": {}}, "unknown key 'experiments.simclr.sweep.spice'; did you mean 'space'?"),
        ({"objective": {"metric": "test"}}, ".objective.metric: Input should be 'knn', 'linear', 'rankme' or 'alignment_uniformity'"),
        ({"objective": {"seconds": True}, "pruner": "median"}, "pruner median compares one number; with seconds there are two"),
        ({"space": {"pretrain.epochs": {"low": 1, "high": 4}}}, "objective.epochs is what every trial trains, so space cannot hold pretrain.epochs"),
        ({"storage": "mysql://x"}, ".sweep.storage: String should match pattern"),
        ({"trials": 0}, ".sweep.trials: Input should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_one_line_names_the_key(space, sweep, message):
    with pytest.raises(UserError) as error:
        space(**sweep)
    assert str(error.value).startswith("params.yaml: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_floor_has_nothing_to_tune(tuned):
    params = tuned()
    with pytest.raises(UserError, match="random does not train, so there is nothing to tune"):
        Space("random", params, params.sweep("simclr"))


def test_what_each_value_may_be_together_it_may_not(space):
    """Each end is tried alone; a combination is only known to be impossible when it is drawn."""
    dimensions = {"loss": {"choices": ["info_nce", "nce"]}, "beta": {"low": 0.0, "high": 1.0}}
    found = space(space=dimensions)
    with pytest.raises(UserError, match="beta and tau_plus weigh the negatives"):
        found.short({"loss": "nce", "beta": 0.5})


def test_labels_are_plain_values():
    assert [label(x) for x in (None, True, 1, 0.5, "a")] == [None, True, 1, 0.5, "a"]
    assert label({"p": 0.5, "a": [1]}) == '{"a":[1],"p":0.5}'


def test_checking_imports_neither_torch_nor_optuna():
    code = "import sys, miyagi.sweep.space, miyagi.stages.sweep; print({'torch', 'optuna'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
