import math

import numpy as np
import pytest
import torch
from lightly.loss.hypersphere_loss import HypersphereLoss

from miyagi.metrics.alignment import alignment, similarity_quantiles, uniformity


@pytest.fixture
def views():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6))
    return x.astype("float32"), (x + 0.3 * random.normal(size=x.shape)).astype("float32")


def test_alignment_by_hand():
    # Of any length: (1, 0) and (0, 1) are sqrt(2) apart, the second pair is the same direction.
    first, second = np.array([[2.0, 0.0], [3.0, 3.0]], "float32"), np.array([[0.0, 5.0], [1.0, 1.0]], "float32")
    assert alignment(first, second) == pytest.approx(1)
    assert alignment(first, second, alpha=1) == pytest.approx(math.sqrt(2) / 2)


def test_uniformity_by_hand():
    # Two opposite pairs of points on a circle: squared distances 4, 4 and four times 2.
    square = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], "float32")
    assert uniformity(square) == pytest.approx(math.log((2 * math.exp(-8) + 4 * math.exp(-4)) / 6))
    assert uniformity(np.ones((5, 3), "float32")) == pytest.approx(0)


@pytest.mark.parametrize(("alpha", "t"), [(2.0, 2.0), (1.0, 0.5)])
def test_against_lightly(views, alpha, t):
    theirs = [float(HypersphereLoss(t=t, lam=lam, alpha=alpha)(*map(torch.from_numpy, views))) for lam in (0.0, 1.0)]
    assert alignment(*views, alpha=alpha) == pytest.approx(theirs[0], rel=1e-4)
    assert sum(uniformity(x, t) for x in views) / 2 == pytest.approx(theirs[1] - theirs[0], rel=1e-4)


def test_isotropic_features_of_many_dimensions():
    x = np.random.default_rng(0).normal(size=(500, 512)).astype("float32")
    assert uniformity(x) == pytest.approx(-4, abs=0.05)


def test_quantiles_against_scikit_learn(views):
    from sklearn.metrics.pairwise import cosine_similarity

    cosine = cosine_similarity(*views)
    positive, negative = np.diag(cosine), [cosine[i, j] for i in range(40) for j in range(40) if i != j]
    found = similarity_quantiles(*views)
    assert list(found) == [f"{kind}_q{level}" for kind in ("pos", "neg") for level in ("05", "25", "50", "75", "95")]
    for name, value in found.items():
        want = np.quantile(positive if name.startswith("pos") else negative, int(name[-2:]) / 100)
        assert value == pytest.approx(want, abs=1e-6)
    assert found["pos_q05"] > found["neg_q95"]
