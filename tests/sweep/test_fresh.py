"""Who wins, and by how much, from scores made by hand; the trainings behind them are in test_tune.py."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from miyagi.metrics.bootstrap import paired, t_interval
from miyagi.sweep.fresh import TOP, Fresh, candidates, winner
from miyagi.sweep.storage import latest


def fresh(*values, images=None):
    return Fresh(np.asarray(values, float), None if images is None else np.asarray(images, float))


def study(*values, directions=("maximize",)):
    found = optuna.create_study(directions=list(directions))
    for value in values:
        trial = found.ask()
        if value is None:
            found.tell(trial, state=TrialState.PRUNED)
        else:
            found.tell(trial, value)
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((50, 60, 70, 65, 40), [0, 1, 2, 3]),
        ((90, 60, 70, 65, 40), [0, 2, 3]),  # the defaults are among the best
        ((50, None, 70, None), [0, 2]),
        ((50, 60, 60, 60, 60), [0, 1, 2, 3]),
        ((50,), [0]),
    ],
)
def test_the_best_and_trial_0(values, expected):
    found = study(*values)
    assert candidates(found, latest(found.trials)) == expected
    assert TOP == 3


def test_of_two_objectives_the_front(monkeypatch):
    found = study((50, 5), (60, 9), (58, 9), (70, 10), (40, 6), directions=("maximize", "minimize"))
    assert candidates(found, latest(found.trials)) == [0, 1, 3]  # 2 is beaten by 1, 4 by 0


def test_the_winner():
    assert winner({0: fresh(60, 61), 3: fresh(62, 60), 5: fresh(50, 70.5)}) == 3
    assert winner({0: fresh(60, 62), 3: fresh(62, 60)}) == 0
    assert winner({0: None, 3: fresh(1)}) == 3
    assert winner({0: None}) is None
    assert winner({}) is None


def test_the_difference_is_paired():
    a, b = np.array([100.0, 50, 100, 0]), np.array([50.0, 50, 100, 0])
    one, other = fresh(62.5, images=a), fresh(50, images=b)
    assert one.minus(other) == paired(a, b)
    assert one.minus(other)[0] == 12.5
    low, high = one.span()
    assert low < one.mean < high


def test_without_images_the_seeds_are_the_sample():
    one, other = fresh(3.0, 4.0, 5.0), fresh(2.0, 2.5, 4.5)
    assert one.minus(other) == t_interval([1.0, 1.5, 0.5])
    assert one.span() == t_interval([3.0, 4.0, 5.0])[1:]
    assert fresh(3.0).minus(fresh(2.0)) is None and fresh(3.0).span() is None
