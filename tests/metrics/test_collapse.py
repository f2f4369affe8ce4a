import numpy as np
import pytest

from miyagi.metrics.collapse import effective_rank, embedding_std, threshold


def test_a_point_has_no_spread_and_rank_one():
    point = np.ones((50, 4), "float32")
    assert embedding_std(point) == pytest.approx(0, abs=1e-6)
    assert effective_rank(point) == pytest.approx(1, abs=1e-4)


def test_an_isotropic_embedding():
    x = np.random.default_rng(0).normal(size=(5000, 16)).astype("float32")
    assert embedding_std(x) == pytest.approx(1 / 4, rel=0.02)
    assert effective_rank(x) == pytest.approx(16, rel=0.02)


def test_rank_by_hand():
    # Singular values 3 and 1: entropy of (3/4, 1/4).
    x = np.diag([3.0, 1.0]).astype("float32")
    assert effective_rank(x) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))
    assert effective_rank(np.zeros((3, 2), "float32")) == 0


@pytest.mark.parametrize("width", [256, 512, 2048])
def test_a_threshold_means_the_same_for_every_wide_embedding(width):
    """0.01 of conv4's 256 dimensions is 0.16 of an isotropic embedding's standard deviation, and so it is of wider."""
    x = np.random.default_rng(0).normal(size=(1000, width)).astype("float32")
    assert threshold(0.01, width) / embedding_std(x) == pytest.approx(0.16, rel=0.02)


def test_a_threshold_is_no_higher_for_narrow_embeddings():
    assert threshold(0.01, 32) == threshold(0.01, 256) == 0.01
