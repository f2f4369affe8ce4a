"""What a killed process leaves behind, on real journal files."""

import optuna
import pytest
from optuna.trial import TrialState

from miyagi.errors import UserError
from miyagi.sweep import storage


@pytest.fixture
def study(tmp_path):
    """study(): the study of a journal file, opened anew."""

    def opened():
        sampler = optuna.samplers.RandomSampler(0)
        backend = storage.journal(tmp_path / "study.log")
        return optuna.create_study(storage=backend, study_name="s", load_if_exists=True, sampler=sampler)

    opened.file = tmp_path / "study.log"
    return opened


def run(study, value=1.0, x=0.5):
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(value, 1)
    study.tell(trial, value)


def test_an_interrupted_trial_gets_its_number_again(study):
    run(study())
    opened = study()
    whole = study.file.read_bytes()
    trial = opened.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(3.0, 1)
    assert [t.state for t in study().trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    storage.rewind(study.file)
    assert study.file.read_bytes() == whole
    again = study().ask()
    assert again.number == 1
    assert study().trials[1].intermediate_values == {} and study().trials[1].params == {}


@pytest.mark.parametrize("cut", [1, 20])
def test_half_a_line_is_cut_off(study, cut):
    run(study())
    run(study())
    study.file.write_bytes(study.file.read_bytes()[:-cut])  # the line that ends trial 1
    storage.rewind(study.file)
    assert [t.state for t in study().trials] == [TrialState.COMPLETE]
    run(study())
    assert [t.number for t in study().trials] == [0, 1]


def test_a_whole_journal_stays_as_it_is(study, tmp_path):
    storage.rewind(tmp_path / "none.log")
    assert not (tmp_path / "none.log").exists()
    for end in ({"values": 1.0}, {"state": TrialState.PRUNED}):
        study().tell(study().ask(), **end)
    failed = study().ask()
    failed.set_user_attr(storage.REASON, "diverged")
    study().tell(failed, state=TrialState.FAIL)
    before = study.file.read_bytes()
    storage.rewind(study.file)
    assert study.file.read_bytes() == before


def test_a_lock_that_a_killed_process_held_is_taken_away(study):
    run(study())
    (study.file.parent / "study.log.lock").symlink_to(study.file)
    storage.rewind(study.file)
    run(study())  # would wait half a minute for the lock


def test_where_others_went_on_the_interrupted_one_is_tried_again(study):
    """The trial after it stays; the new attempt has the values and the place of the first."""
    opened = study()
    first = opened.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    run(opened)
    storage.rewind(study.file)
    assert len(study().trials) == 2
    storage.revive(opened, study().trials[0])
    states = [t.state for t in study().trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING]
    places = storage.latest(study().trials)
    assert sorted(places) == [0, 1]
    assert places[0].number == 2 and places[0].params == {"x": first.params["x"]}
    assert [storage.ended(places[i]) for i in (0, 1)] == [False, True]
    again = opened.ask()
    assert again.number == 2 and storage.origin(study().trials[2]) == 0


def test_a_trial_that_kills_its_worker_is_given_up(study):
    opened = study()
    opened.ask()
    for attempt in range(storage.ATTEMPTS):
        trial = storage.latest(study().trials)[0]
        assert trial.number == attempt and not storage.ended(trial)
        storage.revive(opened, trial)
        opened.ask()
    last = storage.latest(study().trials)[0]
    storage.revive(opened, last)
    assert len(study().trials) == 1 + storage.ATTEMPTS
    assert storage.ended(storage.latest(study().trials)[0])


def test_no_postgres_there_is_one_line():
    with pytest.raises(
        UserError, match=r"the sweep's storage cannot be used: .*; see experiments.E.sweep.storage"
    ) as error:
        storage.postgres("postgresql://me:secret@127.0.0.1:1/x", 20)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)
