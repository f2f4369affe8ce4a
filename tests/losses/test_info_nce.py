import math

import pytest
import torch
from lightly.loss import NTXentLoss
from torch.nn.functional import normalize

from miyagi.losses.info_nce import info_nce, nt_xent


def unit(*shape):
    return normalize(torch.randn(*shape), dim=-1)


def test_info_nce_by_hand():
    # One query; logits: 1 with its key, 0 and -1 with two negatives; tau 0.5 doubles them.
    query = torch.tensor([[1.0, 0.0]])
    key = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    loss, accuracy = info_nce(query, key, negatives, 0.5)
    want = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2)))
    assert float(loss) == pytest.approx(want, rel=1e-6)
    assert float(accuracy) == 1


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_collapsed_network_finds_no_positive(beta):
    """All vectors are one point: as near as the positive is every negative."""
    point = torch.eye(3)[:1].expand(6, 3)
    assert float(info_nce(point, point, point, 0.2, beta=beta)[1]) == 0


def test_nt_xent_by_hand():
    # Two images whose views agree and are orthogonal to the other's: logits 1 / tau, 0, 0.
    views = torch.eye(2)
    loss, accuracy = nt_xent(views, views, 0.5)
    assert float(loss) == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)), rel=1e-6)
    assert float(accuracy) == 1


def test_nt_xent_equals_its_formula_term_by_term():
    torch.manual_seed(0)
    first, second = unit(7, 5), unit(7, 5)
    views, total = torch.cat([first, second]).double(), 0.0
    for i in range(14):
        terms = [math.exp(float(views[i] @ views[k]) / 0.3) for k in range(14)]
        total -= math.log(terms[(i + 7) % 14] / (sum(terms) - terms[i]))
    assert float(nt_xent(first, second, 0.3)[0]) == pytest.approx(total / 14, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 50.0])
def test_against_lightly(temperature):
    torch.manual_seed(0)
    first, second = unit(7, 5), unit(7, 5)
    theirs = NTXentLoss(temperature=temperature)
    torch.testing.assert_close(nt_xent(first, second, temperature)[0], theirs(first, second))
    # With a bank, lightly's positives are the keys and its negatives the bank alone.
    theirs = NTXentLoss(temperature=temperature, memory_bank_size=(11, 5))
    negatives = unit(11, 5)
    theirs.memory_bank.bank = negatives.clone()
    torch.testing.assert_close(info_nce(first, second, negatives, temperature)[0], theirs(first, second))


def test_nt_xent_is_info_nce_over_the_other_images():
    torch.manual_seed(0)
    first, second = unit(6, 4), unit(6, 4)
    views, image = torch.cat([first, second]), torch.arange(6).repeat(2)
    keep = image[:, None] != image
    loss, accuracy = info_nce(views, torch.cat([second, first]), views, 0.2, keep=keep)
    for got, want in zip((loss, accuracy), nt_xent(first, second, 0.2), strict=True):
        torch.testing.assert_close(got, want)


def test_own_negatives_and_those_that_are_kept():
    torch.manual_seed(0)
    query, key, pool = unit(5, 4), unit(5, 4), unit(9, 4)
    chosen = torch.stack([torch.randperm(9)[:3] for _ in range(5)])
    keep = torch.zeros(5, 9, dtype=torch.bool).scatter_(1, chosen, True)
    for how in ({}, {"beta": 1.5, "tau_plus": 0.1}):
        own, kept = info_nce(query, key, pool[chosen], 0.2, **how), info_nce(query, key, pool, 0.2, keep=keep, **how)
        torch.testing.assert_close(own, kept)
    assert not torch.allclose(own[0], info_nce(query, key, pool, 0.2, beta=1.5, tau_plus=0.1)[0])


def hard(query, key, negatives, tau, beta, tau_plus):
    """Robinson et al.'s algorithm, number by number."""
    total = 0.0
    for q, k in zip(query.double(), key.double(), strict=True):
        positive = math.exp(float(q @ k) / tau)
        terms = [math.exp(float(q @ n) / tau) for n in negatives.double()]
        weights = [term**beta for term in terms]
        mean = sum(weights) / len(weights)
        reweighted = sum(w * t for w, t in zip(weights, terms, strict=True)) / mean
        others = (reweighted - tau_plus * len(terms) * positive) / (1 - tau_plus)
        others = max(others, len(terms) * math.exp(-1 / tau))
        total -= math.log(positive / (positive + others))
    return total / len(query)


@pytest.mark.parametrize("tau", [0.1, 0.5])
@pytest.mark.parametrize(("beta", "tau_plus"), [(1.0, 0.0), (0.0, 0.1), (1.0, 0.1), (2.5, 0.6)])
def test_hard_negatives(tau, beta, tau_plus):
    torch.manual_seed(0)
    query, key, negatives = unit(6, 3), unit(6, 3), unit(12, 3)
    got = info_nce(query, key, negatives, tau, beta=beta, tau_plus=tau_plus)[0]
    assert float(got) == pytest.approx(hard(query, key, negatives, tau, beta, tau_plus), rel=1e-4)


def test_hard_negatives_by_hand():
    # Similarities 1 (key), 1 and 0 (negatives), tau 1, beta 1: weights e and 1, of mean (e + 1) / 2.
    axes = torch.eye(2)
    loss, _ = info_nce(axes[:1], axes[:1], axes, 1.0, beta=1.0)
    others = (math.e**2 + 1) / ((math.e + 1) / 2)
    assert float(loss) == pytest.approx(math.log((math.e + others) / math.e), rel=1e-6)


def test_the_nearer_negative_is_pushed_harder():
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    negatives = normalize(torch.tensor([[1.0, 0.2], [-1.0, 0.2]]), dim=1)
    ratio = []
    for beta in (0.0, 2.0):
        held = negatives.clone().requires_grad_()
        info_nce(query, key, held, 0.5, beta=beta)[0].backward()
        ratio.append(float(held.grad[0].norm() / held.grad[1].norm()))
    assert ratio[1] > 2 * ratio[0] > 2
