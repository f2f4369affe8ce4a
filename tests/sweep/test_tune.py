"""Whole sweeps of real trainings on a small project."""

import csv
import io
import shutil
from contextlib import nullcontext

import pytest
import torch
import yaml

from miyagi import params
from miyagi.errors import UserError
from miyagi.sweep import table
from miyagi.sweep import trial as module
from miyagi.sweep import tune as tuning
from miyagi.sweep.objective import train
from miyagi.sweep.session import session
from tests.sweep.conftest import small


@pytest.fixture(autouse=True)
def _restore():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


class Quiet:
    def log(self, metrics, step):
        pass


def quiet(*_):
    return nullcontext(Quiet())


@pytest.fixture
def sweep(project, copied):
    """sweep(name=..., tracked=..., **sweep): tune simclr in a copy of the project; the rows, and what was found."""

    def run(place="copy", tracked=quiet, **settings):
        paths = run.written(place, **settings)
        run.found = tuning.tune("simclr", run.params, paths, tracked)
        return list(csv.DictReader(io.StringIO(run.found.trials)))

    def written(place="copy", **settings):
        run.paths = copied(project, place) if run.paths is None else run.paths
        run.paths.params.write_text(yaml.safe_dump(small(**settings)))
        run.params = params.read(run.paths.params)
        return run.paths

    run.paths, run.written = None, written
    return run


def test_a_sweep_from_end_to_end(sweep):
    told = []

    class Told(Quiet):
        def log(self, metrics, step):
            told[-1][1].append((step, dict(metrics)))

    def tracked(target, fingerprint, values):
        told.append((target, [], values))
        return nullcontext(Told())

    rows = sweep(tracked=tracked, fresh_seeds=1)
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["state"] for row in rows} == {"complete"} and {row["epochs"] for row in rows} == {"2"}
    assert {row["reproducible"] for row in rows} == {"yes"}
    assert (rows[0]["space.temperature"], rows[0]["space.head.width"]) == ("0.2", "256")
    (best,) = [row for row in rows if row["winner"] == "yes"]
    scores = {row["number"]: float(row["fresh"]) for row in rows if row["fresh"]}
    assert "0" in scores and len(scores) == 4
    assert float(best["fresh"]) == max(scores.values())
    assert rows[0]["vs_defaults"] == ""
    for row in rows[1:]:
        assert float(row["vs_defaults"]) == pytest.approx(scores[row["number"]] - scores["0"])
        assert float(row["vs_low"]) <= float(row["vs_defaults"]) <= float(row["vs_high"])
    values = {
        key.removeprefix("space."): yaml.safe_load(best[key]) for key in best if key.startswith("space.") and best[key]
    }
    trained = sweep.found.experiment
    assert trained.settings["temperature"] == values["temperature"] and trained.pretrain.epochs == 2
    assert [target for target, _, _ in told] == [f"simclr-{i}" for i in range(4)]
    for number, (_, logged, about) in enumerate(told):
        assert [step for step, _ in logged] == [1, 2, 2] and about["number"] == number
        assert logged[-1][1]["objective"] == float(rows[number]["value"])
    assert not any(path.is_dir() for path in (sweep.paths.studies / "running").iterdir())


def test_more_trials_go_on_with_those_that_are_there(sweep):
    few = sweep(trials=2, fresh_seeds=1, pruner="median")
    more = sweep(trials=3, fresh_seeds=1, pruner="median")
    for before, after in zip(few, more, strict=False):
        assert [before[column] for column in table.BEFORE] == [after[column] for column in table.BEFORE]


def test_killed_between_any_two_epochs_it_gives_the_same_trials(sweep, monkeypatch):
    """Ended by what no `except Exception` sees, twice in different trials; then it goes on to the end."""
    whole = sweep(trials=3, fresh_seeds=1, pruner="hyperband")
    shutil.rmtree(sweep.paths.studies)
    judge = module.judge

    class Killed(BaseException):
        pass

    for number, epoch in ((1, 1), (2, 1)):

        def killed(here, trial, origin, row, number=number, epoch=epoch):
            if (origin, row["epoch"]) == (number, epoch):
                raise Killed
            judge(here, trial, origin, row)

        monkeypatch.setattr(module, "judge", killed)
        with pytest.raises(Killed):
            sweep(trials=3, fresh_seeds=1, pruner="hyperband")
    monkeypatch.setattr(module, "judge", judge)
    assert sweep(trials=3, fresh_seeds=1, pruner="hyperband") == whole


def tuned(paths, data):
    """Tune simclr with this params.yaml; the rows."""
    paths.params.write_text(yaml.safe_dump(data))
    found = tuning.tune("simclr", params.read(paths.params), paths, quiet)
    return list(csv.DictReader(io.StringIO(found.trials)))


def test_a_collapsed_trial_ends_at_once(project, copied):
    """Every embedding is below this threshold: the defaults go on all the same, the others end after an epoch."""
    data = small(trials=3, fresh_seeds=1)
    data["pretrain"] = data["pretrain"] | {"monitor": {"images": 64, "collapse_std": 0.9}}
    rows = tuned(copied(project), data)
    assert [(row["state"], row["reason"], row["epochs"]) for row in rows] == [
        ("complete", "", "2"), ("pruned", "collapsed", "1"), ("pruned", "collapsed", "1"),
    ]  # fmt: skip
    assert rows[0]["winner"] == "yes"


def test_a_diverged_trial_is_no_error(project, copied):
    data = small(trials=2, fresh_seeds=1, sampler="grid", space={"pretrain.lr": {"choices": [0.002, 1e30]}})
    data["pretrain"] = data["pretrain"] | {"optimizer": "sgd"}
    rows = tuned(copied(project), data)
    assert [(row["state"], row["reason"]) for row in rows] == [("complete", ""), ("failed", "diverged")]
    assert rows[0]["winner"] == "yes" and rows[1]["value"] == ""


def test_values_that_cannot_be_had_together_are_a_trial(sweep):
    space = {"loss": {"choices": ["info_nce", "nce"]}, "beta": {"choices": [0.0, 1.0]}}
    rows = sweep(trials=4, fresh_seeds=1, space=space, sampler="grid")
    states = {(yaml.safe_load(row["space.loss"]), float(row["space.beta"])): row["state"] for row in rows}
    assert states.pop(("nce", 1.0)) == "failed"
    assert set(states.values()) == {"complete"} and len(states) == 3
    assert {row["reason"] for row in rows} == {"", "impossible"}


def test_accuracy_against_seconds(sweep):
    rows = sweep(
        trials=3, fresh_seeds=1, objective={"epochs": 1, "train_limit": 64, "metric": "linear", "seconds": True}
    )
    assert {row["reproducible"] for row in rows} == {"no"}
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert [row["winner"] for row in rows].count("yes") == 1


def test_a_budget_of_time(sweep):
    rows = sweep(trials=50, fresh_seeds=1, timeout=0.01)
    assert [row["number"] for row in rows] == ["0"] and rows[0]["winner"] == "yes"
    assert rows[0]["reproducible"] == "no"


def test_a_better_trial_wins(project, copied):
    """With the defaults at a learning rate that learns nothing, another trial is named, and trained in full length."""
    space, objective = {"pretrain.lr": {"choices": [1e-9, 0.01]}}, {"epochs": 12}
    data = small(trials=2, fresh_seeds=1, sampler="grid", space=space, objective=objective)
    data["experiments"] = {"simclr": {"method": "supervised", "sweep": data["experiments"]["simclr"]["sweep"]}}
    data["finetune"] = {"experiments": [], "protocols": []}
    data["pretrain"] = data["pretrain"] | {"lr": 1e-9}
    paths = copied(project)
    paths.params.write_text(yaml.safe_dump(data))
    found = tuning.tune("simclr", params.read(paths.params), paths, quiet)
    defaults, best = csv.DictReader(io.StringIO(found.trials))
    assert best["winner"] == "yes" and defaults["winner"] == "no"
    assert float(best["vs_defaults"]) > 0 and float(best["value"]) > float(defaults["value"])
    trained = found.experiment
    assert (trained.pretrain.lr, trained.pretrain.epochs, trained.method) == (0.01, 2, "supervised")


def test_the_key_holds_what_decides(sweep):
    def key(**settings):
        paths = sweep.written(**settings)
        return session("simclr", sweep.params, paths, quiet).key

    first = key()
    assert key(trials=9, jobs=2, timeout=5.0, fresh_seeds=3) == first
    assert len({first, key(seed=1), key(pruner="median"), key(objective={"epochs": 1})}) == 4


def test_a_further_machine_needs_a_study_that_can_be_shared(sweep):
    sweep.written()
    with pytest.raises(UserError, match="further machines share a study in Postgres"):
        tuning.join("simclr", sweep.params, sweep.paths, quiet)
    with pytest.raises(UserError, match=r"experiments.random: there is no sweep"):
        tuning.join("random", sweep.params, sweep.paths, quiet)


def test_the_value_is_that_of_the_training(sweep):
    """Trial 0 is the defaults, trained with the sweep's seed: the same number outside of any study."""
    rows = sweep(trials=1, fresh_seeds=1)
    space = session("simclr", sweep.params, sweep.paths, quiet).space
    result = train(space.short(space.defaults), 0, space.sweep.objective, sweep.paths, sweep.paths.studies / "x")
    assert float(rows[0]["value"]) == result.value


def test_pruning_ends_what_is_worse(sweep):
    """After three whole trials the median ends what lags at its first epoch: here what cannot learn at 1e-9.

    Uniformity tells at once; the kNN of an untrained network may beat that of one trained for an epoch.
    """
    space = {"pretrain.lr": {"choices": [0.002, 1e-9, 1e-8]}, "augment.flip": {"choices": [0.5, 0.45]}}
    objective = {"metric": "alignment_uniformity", "epochs": 3, "train_limit": 640}
    rows = sweep(trials=6, fresh_seeds=1, sampler="grid", pruner="median", space=space, objective=objective)
    assert [float(row["space.pretrain.lr"]) == 0.002 for row in rows] == [True, False, False, True, False, False]
    assert [(row["state"], int(row["epochs"])) for row in rows] == [("complete", 3)] * 4 + [("pruned", 1)] * 2
