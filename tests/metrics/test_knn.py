import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from miyagi.metrics.knn import knn, normalize


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    train, queries = rng.normal(size=(300, 8)).astype("float32"), rng.normal(size=(90, 8)).astype("float32")
    labels = rng.integers(0, 5, 300)
    model = KNeighborsClassifier(25, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1))
    want = model.fit(train.astype("float64"), labels).predict(queries.astype("float64"))
    assert np.array_equal(knn(train, labels, queries, 25, 0.1), want)


def test_by_hand():
    # Similarities to (1, 0): 1 (class 0), 0.8 and 0.6 (class 1). At T 1 the two outvote the one; at T 0.1 they do not.
    train = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8]], "float32")
    labels, query = np.array([0, 1, 1]), np.array([[2.0, 0.0]], "float32")
    assert knn(train, labels, query, 3, 1.0).tolist() == [1]
    assert knn(train, labels, query, 3, 0.1).tolist() == [0]
    assert knn(train, labels, query, 1, 1.0).tolist() == [0]


def test_a_tiny_temperature_does_not_overflow():
    train = np.eye(3, dtype="float32")
    assert knn(train, np.array([2, 1, 0]), train, 3, 1e-4).tolist() == [2, 1, 0]


def test_k_larger_than_the_bank():
    with pytest.raises(ValueError, match="k = 4 neighbours of 3"):
        knn(np.eye(3, dtype="float32"), np.arange(3), np.eye(3, dtype="float32"), 4)


def test_zeros_stay_zero():
    assert np.array_equal(normalize(np.zeros((2, 3), "float32")), np.zeros((2, 3)))
