import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from miyagi.losses.info_nce import info_nce
from miyagi.losses.mutual_information import dv, jsd, mutual_information_bound


def test_jsd_by_hand():
    assert float(jsd(torch.zeros(3), torch.zeros(5))) == pytest.approx(2 * math.log(2))
    got = float(jsd(torch.tensor([1.0]), torch.tensor([0.0, -2.0])))
    want = math.log(1 + math.exp(-1)) + (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert got == pytest.approx(want, rel=1e-6)


def test_jsd_is_the_loss_of_a_classifier():
    torch.manual_seed(0)
    positive, negative = torch.randn(7), torch.randn(7, 5)
    want = binary_cross_entropy_with_logits(positive, torch.ones(7)) + binary_cross_entropy_with_logits(
        negative, torch.zeros(7, 5)
    )
    torch.testing.assert_close(jsd(positive, negative), want)


def test_dv_by_hand():
    got = float(dv(torch.tensor([1.0, 3.0]), torch.tensor([0.0, math.log(3)])))
    assert got == pytest.approx(math.log((1 + 3) / 2) - 2, rel=1e-6)


def test_dv_against_scipy():
    torch.manual_seed(0)
    positive, negative = 5 * torch.randn(7), 5 * torch.randn(7, 5)
    want = logsumexp(negative.double().numpy(), b=1 / 35) - positive.double().numpy().mean()
    assert float(dv(positive, negative)) == pytest.approx(want, rel=1e-5)


def test_dv_of_two_processes_is_that_of_all_their_scores():
    torch.manual_seed(0)
    positive, negative = torch.randn(2, 4), 5 * torch.randn(2, 4, 5)
    whole = float(dv(positive, negative))
    logs = torch.logsumexp(negative.flatten(1), 1) - math.log(20)
    parts = [float(dv(positive[i], negative[i], lambda own: logs)) for i in range(2)]
    assert sum(parts) / 2 == pytest.approx(whole, rel=1e-6)
    assert sum(float(dv(positive[i], negative[i])) for i in range(2)) / 2 != pytest.approx(whole, rel=1e-3)


@pytest.fixture
def gaussians():
    """Pairs (x, y) with correlation 0.8 in each of two dimensions: I = -log(1 - 0.8^2) = 1.02 nats."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2048, 2))
    y = 0.8 * x + 0.6 * random.normal(size=(2048, 2))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32), -math.log(1 - 0.64)


def log_ratio(x, y):
    """log p(x, y) / (p(x) p(y)) of every pair: the best score there is."""
    x, y = x[:, None], y[None]
    return -0.5 * (math.log(0.36) + ((y - 0.8 * x) ** 2 / 0.36 - y**2)).sum(-1)


def test_dv_at_the_best_score_is_the_mutual_information(gaussians):
    x, y, truth = gaussians
    scores = log_ratio(x, y)
    positive, negative = scores.diag(), scores[~torch.eye(len(x), dtype=torch.bool)]
    assert -float(dv(positive, negative)) == pytest.approx(truth, abs=0.05)


def test_the_bound_is_below_the_mutual_information_and_tight_with_many_candidates(gaussians):
    x, y, truth = gaussians
    found = []
    for candidates in (2, 16, 128):
        blocks = [log_ratio(*pair) for pair in zip(x.split(candidates), y.split(candidates), strict=True)]
        losses = [cross_entropy(block, torch.arange(candidates)) for block in blocks]
        found.append(float(mutual_information_bound(torch.stack(losses).mean(), candidates)))
    assert found[0] < found[1] < found[2] < truth + 0.05
    assert found[2] > truth - 0.1
    assert found[0] < math.log(2)


def test_the_bound_by_hand():
    assert float(mutual_information_bound(torch.tensor(0.5), 10)) == pytest.approx(math.log(10) - 0.5)
    # Where nothing is known, all candidates are alike: L = log(K + 1), and the bound says 0.
    flat = torch.zeros(4, 3)
    assert float(mutual_information_bound(info_nce(flat, flat, torch.zeros(9, 3), 1.0)[0], 10)) == pytest.approx(
        0, abs=1e-6
    )
    # And where all is known it says log(K + 1), never more.
    sharp = normalize(torch.eye(4), dim=1)
    loss = info_nce(sharp, sharp, -sharp, 0.01)[0]
    assert float(mutual_information_bound(loss, 5)) == pytest.approx(math.log(5), rel=1e-6)
