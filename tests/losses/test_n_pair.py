import math

import pytest
import torch
from pytorch_metric_learning.losses import NPairsLoss

from miyagi.losses.info_nce import info_nce
from miyagi.losses.n_pair import n_pair


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    return torch.randn(6, 4), torch.randn(6, 4), torch.randn(9, 4)


def test_by_hand():
    # q.k+ = 2, q.k- = 1 and 0.
    loss = n_pair(torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[1.0], [0.0]]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)), rel=1e-6)


def test_it_is_info_nce_at_temperature_one_without_l2(vectors):
    query, key, negatives = vectors
    keep = torch.rand(6, 9) < 0.7
    torch.testing.assert_close(n_pair(query, key, negatives), info_nce(query, key, negatives, 1.0)[0])
    torch.testing.assert_close(
        n_pair(query, key, negatives, keep=keep), info_nce(query, key, negatives, 1.0, keep=keep)[0]
    )


def test_against_pytorch_metric_learning(vectors):
    """Theirs: the keys of the other queries are the negatives."""
    query, key, _ = vectors
    from pytorch_metric_learning.distances import DotProductSimilarity

    theirs = NPairsLoss(distance=DotProductSimilarity(normalize_embeddings=False))
    label = torch.arange(6).repeat(2)
    want = theirs(
        torch.cat([query, key]), label, (torch.arange(6), torch.arange(6, 12), torch.arange(6), torch.arange(1, 7))
    )
    torch.testing.assert_close(n_pair(query, key, key, keep=~torch.eye(6, dtype=torch.bool)), want)
