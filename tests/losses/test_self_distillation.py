import math

import pytest
import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity
from torch.nn import functional as F

from miyagi.losses.self_distillation import (
    cross_view_distillation,
    negative_cosine,
    normalized_distance,
    normalized_std,
)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]


def test_negative_cosine_is_lightlys(pair):
    torch.testing.assert_close(negative_cosine(*pair), NegativeCosineSimilarity()(*pair))


def test_negative_cosine_by_hand():
    p, z = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-5.0, 0.0]])
    assert float(negative_cosine(p, z)) == pytest.approx(-(0.8 - 1) / 2)


def test_normalized_distance_is_the_squared_distance_of_unit_vectors(pair):
    p, z = (F.normalize(x, dim=1) for x in pair)
    torch.testing.assert_close(normalized_distance(*pair), (p - z).square().sum(1).mean())


@pytest.mark.parametrize("loss", [negative_cosine, normalized_distance])
def test_the_target_takes_no_gradient(pair, loss):
    loss(*pair).backward()
    assert pair[0].grad.abs().sum() > 0 and pair[1].grad is None


@pytest.mark.parametrize("loss", [negative_cosine, normalized_distance])
def test_half_precision_is_computed_in_fp32(pair, loss):
    half = [x.detach().bfloat16() for x in pair]
    assert torch.equal(loss(*half), loss(*[x.float() for x in half]))


def test_normalized_std():
    same = torch.randn(1, 64).expand(100, 64) * torch.rand(100, 1).add(0.1)
    assert float(normalized_std(same)) < 1e-5  # directions count, lengths do not
    spread = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert float(normalized_std(spread)) == pytest.approx(1, abs=0.01)
    two = torch.tensor([[1.0, 0.0], [-2.0, 0.0]])  # +1 and -1: deviation sqrt(2) in one of two dimensions
    assert float(normalized_std(two)) == pytest.approx(2**0.5 / 2 * 2**0.5)


@pytest.fixture
def views():
    """Outputs for 4 crops of 6 images by the student, 2 of them also by the teacher, and a centre."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 6, 5, generator=generator, requires_grad=True)
    return student, torch.randn(2, 6, 5, generator=generator, requires_grad=True), torch.randn(5, generator=generator)


def test_distillation_is_lightlys(views):
    student, teacher, center = views
    theirs = DINOLoss(output_dim=5, teacher_temp=0.04, student_temp=0.1)
    theirs.center = center[None, None].clone()
    found = cross_view_distillation(student, teacher, center, 0.1, 0.04)
    want = theirs(list(teacher), list(student))
    torch.testing.assert_close(found.loss, want)
    (got,), (wanted,) = (torch.autograd.grad(loss, student) for loss in (found.loss, want))
    torch.testing.assert_close(got, wanted)
    cross_view_distillation(student, teacher, center, 0.1, 0.04).loss.backward()
    assert teacher.grad is None and center.grad is None


def test_distillation_by_hand():
    """tau_t 1/2 makes (log 3) / 2 a ratio of 3 to 1: P_t (3/4, 1/4); tau_s 1 and log 4 make P_s (4/5, 1/5)."""
    teacher = torch.tensor([[[1 + math.log(3) / 2, 7.0]]])
    student = torch.tensor([[[9.0, -9.0]], [[math.log(4), 0.0]]])
    found = cross_view_distillation(student, teacher, torch.tensor([1.0, 7.0]), 1.0, 0.5)
    assert float(found.loss) == pytest.approx(-(0.75 * math.log(0.8) + 0.25 * math.log(0.2)))
    assert float(found.entropy) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_distillation_is_finite_where_the_teacher_is_sure(views):
    student, teacher, center = views
    found = cross_view_distillation(1000 * student, 1000 * teacher, center, 0.1, 0.001)
    assert torch.isfinite(found.loss) and float(found.entropy) == pytest.approx(0, abs=1e-6)
