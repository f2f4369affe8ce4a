"""What is drawn depends on the trials before it alone: studies in memory, with a made-up value for each trial."""

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

from miyagi.settings import Sweep
from miyagi.sweep.samplers import pruner, sampler
from tests.sweep.conftest import SPACE

GRID = {
    "temperature": {"low": 0.1, "high": 0.3, "step": 0.1},
    "head.kind": {"choices": ["none", "linear", "mlp"]},
}


def at_the_edge(values):
    return values["temperature"] + len(str(values.get("head.kind")))


def inside(values):
    """A Gaussian process goes back to an edge that is best, on some processors; to a place inside it does not."""
    return len(str(values.get("head.kind"))) - (values["temperature"] - 0.4) ** 2


def go_on(study, space, until, score=at_the_edge):
    """Trials up to number `until`; their values."""
    while len(study.trials) < until:
        trial = study.ask()
        study.sampler = sampler(space.sweep, space, trial.number)
        values = space.suggest(trial)
        study.tell(trial, score(values))
    return [trial.params for trial in study.trials]


def copy_of(study):
    """What another process finds: the trials, and no sampler that remembers anything."""
    other = optuna.create_study(study_name=study.study_name, direction="maximize")
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        other._storage.set_study_system_attr(other._study_id, key, value)
    other.add_trials(study.trials)
    return other


@pytest.mark.parametrize("name", ["tpe", "gp", "qmc", "random", "grid"])
def test_a_new_process_draws_what_the_old_one_would_have(space, name):
    found = space(sampler=name, trials=9, seed=3, space=GRID if name == "grid" else SPACE)
    study = optuna.create_study(study_name="s", direction="maximize")
    go_on(study, found, 4, inside)
    half = copy_of(study)
    whole = go_on(study, found, 9, inside)
    assert go_on(copy_of(half), found, 9, inside) == whole
    assert whole[0]["temperature"] == 0.2 and whole[0]["head.kind"] == "mlp"
    assert len({str(params) for params in whole}) == 9


@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_another_seed_draws_something_else(space, name):
    drawn = []
    for seed in (0, 100):
        study = optuna.create_study(direction="maximize")
        drawn.append(go_on(study, space(sampler=name, seed=seed), 4))
    assert drawn[0][0] == drawn[1][0] and drawn[0][2] != drawn[1][2]


def test_a_grid_is_complete(space):
    found = space(sampler="grid", space=GRID, trials=50)
    study = optuna.create_study(direction="maximize")
    drawn = go_on(study, found, found.places)
    assert {(round(p["temperature"], 6), p["head.kind"]) for p in drawn} == {
        (t, kind) for t in (0.1, 0.2, 0.3) for kind in ("none", "linear", "mlp")
    }
    assert found.places == len(drawn) == 9


def test_tpe_learns(space):
    """The made-up value grows with the temperature, whose mean is 0.32 where it is drawn evenly in the logarithm."""
    study = optuna.create_study(direction="maximize")
    drawn = [params["temperature"] for params in go_on(study, space(space={"temperature": SPACE["temperature"]}), 24)]
    assert sum(drawn[14:]) / 10 > 0.55


@pytest.mark.parametrize(
    ("name", "kind"), [("none", NopPruner), ("median", MedianPruner), ("hyperband", HyperbandPruner)]
)
def test_pruners(name, kind):
    assert isinstance(pruner(Sweep(space={"a": {"choices": [1]}}, trials=1, pruner=name), 9), kind)
