import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import nn

from miyagi.losses.margin import contrastive, triplet

N, K = 6, 9


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    return torch.randn(N, 4) / 2, torch.randn(N, 4) / 2, torch.randn(K, 4) / 2


@pytest.mark.parametrize(
    ("form", "pair", "three"),
    [
        # d+ = 1; d- = 0.5 and 2: of the margins 1.5 (d^2: 0.25, 4) what is left is 1.25 and 0, or (1 and 0)^2 / 2.
        ("squared", 1 + (1.25 + 0) / 2, ((1.5 + 1 - 0.25) + 0) / 2),
        ("distance", 1 / 2 + (1 + 0) / 4, ((1.5 + 1 - 0.5) + (1.5 + 1 - 2)) / 2),
    ],
)
def test_by_hand(form, pair, three):
    query, key = torch.zeros(1, 1), torch.ones(1, 1)
    negatives = torch.tensor([[0.5], [-2.0]])
    assert float(contrastive(query, key, negatives, 1.5, form=form)) == pytest.approx(pair)
    assert float(triplet(query, key, negatives, 1.5, form=form)) == pytest.approx(three)


def test_squared_contrastive_against_pytorch_metric_learning(vectors):
    query, key, negatives = vectors
    theirs = ContrastiveLoss(
        pos_margin=0,
        neg_margin=1.5,
        distance=LpDistance(normalize_embeddings=False, p=2, power=2),
        reducer=MeanReducer(),
    )
    positive, negative = (
        (torch.arange(N), torch.arange(N)),
        (torch.arange(N).repeat_interleave(K), N + torch.arange(K).repeat(N)),
    )
    want = theirs(query, None, (*positive, *negative), ref_emb=torch.cat([key, negatives]))
    torch.testing.assert_close(contrastive(query, key, negatives, 1.5), want)


def test_hadsells_contrastive_against_torchs_hinge(vectors):
    query, key, negatives = vectors
    hinge = nn.HingeEmbeddingLoss(margin=1.5, reduction="none")
    near = hinge(torch.pairwise_distance(query, key, eps=0), torch.ones(N))
    far = hinge(torch.cdist(query, negatives), -torch.ones(N, K))
    want = (near.square() / 2).mean() + (far.square() / 2).mean()
    torch.testing.assert_close(contrastive(query, key, negatives, 1.5, form="distance"), want)


@pytest.mark.parametrize("form", ["squared", "distance"])
def test_triplet_against_pytorch_metric_learning(vectors, form):
    query, key, negatives = vectors
    distance = LpDistance(normalize_embeddings=False, p=2, power=2 if form == "squared" else 1)
    theirs = TripletMarginLoss(margin=0.7, distance=distance, reducer=MeanReducer())
    each = torch.arange(N).repeat_interleave(K)
    want = theirs(query, None, (each, each, N + torch.arange(K).repeat(N)), ref_emb=torch.cat([key, negatives]))
    torch.testing.assert_close(triplet(query, key, negatives, 0.7, form=form), want)


def test_triplet_against_torch(vectors):
    query, key, negatives = vectors
    own = negatives[:N]
    want = nn.TripletMarginLoss(margin=0.7, eps=0)(query, key, own)
    torch.testing.assert_close(triplet(query, key, own[:, None], 0.7, form="distance"), want)


@pytest.mark.parametrize("loss", [contrastive, triplet])
@pytest.mark.parametrize("form", ["squared", "distance"])
def test_only_what_is_kept(vectors, loss, form):
    query, key, negatives = vectors
    chosen = torch.stack([torch.randperm(K)[:3] for _ in range(N)])
    keep = torch.zeros(N, K, dtype=torch.bool).scatter_(1, chosen, True)
    want = loss(query, key, negatives[chosen], 1.5, form=form)
    torch.testing.assert_close(loss(query, key, negatives, 1.5, form=form, keep=keep), want)


@pytest.mark.parametrize("loss", [contrastive, triplet])
@pytest.mark.parametrize("form", ["squared", "distance"])
def test_equal_vectors_give_a_finite_gradient(loss, form):
    """The gradient of a distance at zero is infinite, of its square it is zero: a collapsed network must not be NaN."""
    same = torch.ones(3, 4, requires_grad=True)
    loss(same, same * 1, same * 1, 1.0, form=form).backward()
    assert torch.isfinite(same.grad).all()
