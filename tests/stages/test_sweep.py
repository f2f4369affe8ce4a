import pytest
import yaml

from miyagi import params
from miyagi.errors import UserError
from miyagi.methods import simclr
from miyagi.nn.encoders import conv4
from miyagi.settings import Experiment, Head, Pretrain, Runtime, ViewRecipe
from miyagi.stages import sweep


def edit(paths, change):
    data = yaml.safe_load(paths.params.read_text())
    change(data)
    paths.params.write_text(yaml.safe_dump(data))
    return params.read(paths.params)


def resolve(paths, name, change=lambda data: None):
    sweep.run(name, edit(paths, change), paths)
    return paths.experiment(name).read_bytes()


def sorted_all_the_way(value):
    if isinstance(value, dict):
        return list(value) == sorted(value) and all(map(sorted_all_the_way, value.values()))
    return all(map(sorted_all_the_way, value)) if isinstance(value, list) else True


def test_the_description_is_total_and_sorted(project):
    written = yaml.safe_load(project.experiment("simclr").read_text())
    assert sorted_all_the_way(written)
    assert written.keys() == Experiment.model_fields.keys()
    assert written["settings"].keys() == simclr.Settings.model_fields.keys()
    assert written["settings"]["head"].keys() == Head.model_fields.keys()
    assert written["encoder"].keys() == {"name", *conv4.Settings.model_fields}
    assert written["pretrain"].keys() == Pretrain.model_fields.keys()
    assert written["runtime"].keys() == Runtime.model_fields.keys()
    assert [view.keys() for view in written["views"]] == [ViewRecipe.model_fields.keys()]
    assert written["settings"]["temperature"] == 0.2 and written["encoder"]["width"] == 8
    assert written["pretrain"]["epochs"] == 2 and written["views"][0]["blur"] is None


def test_read_back_it_is_what_was_resolved(project, copied):
    paths = copied(project)
    returned = sweep.run("simclr", params.read(paths.params), paths)
    written = yaml.safe_load(paths.experiment("simclr").read_text())
    assert Experiment.model_validate(written, strict=False) == returned


def test_the_random_floor_has_no_training(project):
    written = yaml.safe_load(project.experiment("random").read_text())
    assert written["pretrain"] is None and written["views"] == []


@pytest.mark.parametrize("name", ["random", "simclr"])
def test_twice_the_same_bytes(project, copied, name):
    first, again = (resolve(copied(project, place), name) for place in ("a", "b"))
    assert first == again == project.experiment(name).read_bytes()


def test_what_a_shared_setting_touches(project, copied):
    before = {name: project.experiment(name).read_bytes() for name in ("random", "simclr")}
    paths = copied(project)
    faster = {"lr": 0.01}
    after = {name: resolve(paths, name, lambda data: data["pretrain"].update(faster)) for name in before}
    assert after["random"] == before["random"]
    assert after["simclr"] != before["simclr"]
    wide = {name: resolve(paths, name, lambda data: data["encoder"].update(width=9)) for name in before}
    assert wide["random"] != before["random"] and wide["simclr"] != after["simclr"]


def test_an_experiment_that_is_not_tuned_has_no_trials(project, copied):
    paths = copied(project)
    resolve(paths, "simclr")
    assert len(paths.trials("simclr").read_text().splitlines()) == 1


def test_a_sweep_is_checked_before_its_first_trial(project, copied):
    space = {"temprature": {"low": 0.1, "high": 1.0}}
    with pytest.raises(UserError, match="unknown key 'temprature'; did you mean 'temperature'"):
        resolve(
            copied(project),
            "simclr",
            lambda data: data["experiments"]["simclr"].update(sweep={"trials": 2, "space": space}),
        )


def test_what_a_sweep_leaves_untouched(project, copied):
    """The block is no part of the description: without it, or with it and the defaults as winner, it is the same."""
    sweep_of = {"trials": 1, "fresh_seeds": 1, "space": {"temperature": {"low": 0.1, "high": 1.0}}}
    tuned = resolve(copied(project), "simclr", lambda data: data["experiments"]["simclr"].update(sweep=sweep_of))
    assert tuned == project.experiment("simclr").read_bytes()
