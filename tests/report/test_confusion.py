import numpy as np
from sklearn.metrics import confusion_matrix

from miyagi.report.confusion import MOST, confusion


def kept(predicted, labels):
    return {"d.test.encoder": np.array(predicted), "d.test.labels": np.array(labels)}


def test_counts_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 7, (2, 200))
    found = confusion(kept(predicted, labels), "d", "encoder", 7)
    assert (found.counts == confusion_matrix(labels, predicted)).all()
    np.testing.assert_allclose(found.shares.sum(1), 1)


def test_the_worst_confusions_by_hand():
    found = confusion(kept([0, 1, 1, 1, 1, 2], [0, 0, 0, 1, 1, 1]), "d", "encoder", 4)
    assert found.worst == [(0, 1, 2 / 3), (1, 2, 1 / 3)]
    assert (found.shares[3] == 0).all()  # a class without test images


def test_nothing_where_there_is_no_matrix_to_draw():
    assert confusion({}, "d", "encoder", 2) is None
    assert confusion(kept([0], [[1, 0]]), "d", "encoder", 2) is None  # several labels an image
    assert confusion(kept([0], [0]), "d", "encoder", MOST + 1) is None
