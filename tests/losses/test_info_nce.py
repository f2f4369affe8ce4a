import math

import pytest
import torch
from torch.nn.functional import normalize

from miyagi.losses.info_nce import info_nce, nt_xent


def test_info_nce_by_hand():
    # One query; logits: 1 with its key, 0 and -1 with two negatives; tau 0.5 doubles them.
    query = torch.tensor([[1.0, 0.0]])
    key = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    loss, accuracy = info_nce(query, key, negatives, 0.5)
    want = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2)))
    assert float(loss) == pytest.approx(want, rel=1e-6)
    assert float(accuracy) == 1


def test_nt_xent_by_hand():
    # Two images whose views agree and are orthogonal to the other's: logits 1 / tau, 0, 0.
    views = torch.eye(2)
    loss, accuracy = nt_xent(views, views, 0.5)
    assert float(loss) == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)), rel=1e-6)
    assert float(accuracy) == 1


def test_nt_xent_equals_its_formula_term_by_term():
    torch.manual_seed(0)
    first, second = normalize(torch.randn(7, 5), dim=1), normalize(torch.randn(7, 5), dim=1)
    views, total = torch.cat([first, second]).double(), 0.0
    for i in range(14):
        terms = [math.exp(float(views[i] @ views[k]) / 0.3) for k in range(14)]
        total -= math.log(terms[(i + 7) % 14] / (sum(terms) - terms[i]))
    assert float(nt_xent(first, second, 0.3)[0]) == pytest.approx(total / 14, rel=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 50.0])
def test_no_overflow(temperature):
    torch.manual_seed(0)
    a, b = normalize(torch.randn(8, 4), dim=1).requires_grad_(), normalize(torch.randn(8, 4), dim=1)
    for loss in (nt_xent(a, b, temperature)[0], info_nce(a, b, b.flip(0), temperature)[0]):
        assert torch.isfinite(loss)
        (grad,) = torch.autograd.grad(loss, a)
        assert torch.isfinite(grad).all()
    assert torch.isfinite(nt_xent(a.bfloat16(), b.bfloat16(), temperature)[0])
