import pytest
import torch
from lightly.loss import BarlowTwinsLoss, VICRegLoss

from miyagi.losses.redundancy import barlow_twins, vicreg

A = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def pair():
    """Two related embeddings, of dimensions that are wide, narrow, shifted and alike."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(12, 6, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 3, 6) + 2
    first[:, 1] += first[:, 5]
    second = first + 0.5 * torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return first.requires_grad_(), second.detach().requires_grad_()


def gradients(loss, pair):
    return torch.autograd.grad(loss, pair)


def test_barlow_twins_is_lightlys(pair):
    terms = barlow_twins(*pair)
    ours, theirs = terms.invariance + 0.3 * terms.redundancy, BarlowTwinsLoss(0.3)(*pair)
    torch.testing.assert_close(ours, theirs)
    for got, want in zip(gradients(ours, pair), gradients(theirs, pair), strict=True):
        torch.testing.assert_close(got, want)


def test_barlow_twins_by_hand():
    """Standardised, a is (+ +, - -) and b is (+ -, - +): C = (1, -1; 1, -1)."""
    terms = barlow_twins(A, B, eps=0.0)
    assert float(terms.invariance) == pytest.approx((1 - 1) ** 2 + (1 + 1) ** 2)
    assert float(terms.redundancy) == pytest.approx(1 + 1)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_is_lightlys(pair, weights):
    terms = vicreg(*pair)
    ours = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    theirs = VICRegLoss(*weights)(*pair)
    torch.testing.assert_close(ours, theirs)
    for got, want in zip(gradients(ours, pair), gradients(theirs, pair), strict=True):
        torch.testing.assert_close(got, want)


def test_vicreg_by_hand():
    """Variances over 1 image less than 2: of a 2 and 8, of b 2 and 2; covariances 4 and -2."""
    terms = vicreg(A, 0.25 * B, eps=0.0)
    assert float(terms.invariance) == pytest.approx((0.75**2 + 2.25**2) / 2)
    assert float(terms.variance) == pytest.approx((0 + (1 - 0.125**0.5)) / 2)
    assert float(terms.covariance) == pytest.approx(2 * 16 / 2 + 2 * (2 / 16) ** 2 / 2)


def test_a_constant_embedding_is_the_worst_and_has_a_gradient():
    x = torch.full((8, 4), 0.5, requires_grad=True)
    terms = vicreg(x, x)
    assert terms.invariance.item() == terms.covariance.item() == 0
    assert terms.variance.item() == pytest.approx(0.99)  # 1 - sqrt(eps)
    assert barlow_twins(x, x).invariance.item() == 4
    terms.variance.backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
def test_half_precision_is_computed_in_fp32(pair, loss):
    half = [x.detach().bfloat16() for x in pair]
    assert all(map(torch.equal, loss(*half), loss(*[x.float() for x in half])))
