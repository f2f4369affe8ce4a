import math

import pytest
import torch
from lightly.loss import SwaVLoss
from lightly.loss.swav_loss import sinkhorn as lightlys

from miyagi.losses.sinkhorn import sinkhorn, swapped_prediction


@pytest.fixture
def scores():
    """5 views of 12 images against 4 prototypes: cosines."""
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(5, 12, 4, generator=generator, dtype=torch.float64) - 1


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_codes_are_lightlys(scores, epsilon, iterations):
    torch.testing.assert_close(sinkhorn(scores[0], epsilon, iterations), lightlys(scores[0], iterations, epsilon))


def test_one_iteration_by_hand():
    """exp(scores): (1 2; 3 2). Prototypes first: (1/4 1/2; 3/4 1/2). Then images: (1/3 2/3; 3/5 2/5)."""
    codes = sinkhorn(torch.tensor([[1.0, 2.0], [3.0, 2.0]]).log(), 1.0, 1)
    torch.testing.assert_close(codes, torch.tensor([[1 / 3, 2 / 3], [3 / 5, 2 / 5]]))


def test_images_sum_to_one_and_prototypes_share_the_batch(scores):
    lopsided = scores[0] + torch.tensor([0.5, 0.0, 0.0, -0.5])
    codes = sinkhorn(lopsided, 0.5, 3)
    torch.testing.assert_close(codes.sum(1), torch.ones(12, dtype=torch.float64))
    even = torch.full((4,), 12 / 4, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(lopsided, 0.5, 200).sum(0), even)
    plain = torch.softmax(lopsided / 0.5, 1).sum(0)
    assert (codes.sum(0) - even).abs().max() < 0.1 * (plain - even).abs().max()


def test_nothing_overflows_at_a_small_epsilon():
    codes = sinkhorn(torch.eye(4) * 2 - 1, 1e-3, 3)  # exp(1000) is no float
    torch.testing.assert_close(codes, torch.eye(4))


def test_swapped_prediction_is_lightlys(scores):
    """Two large and three small views, also the gradient; codes take none."""
    ours, theirs = (scores.clone().requires_grad_() for _ in range(2))
    codes = torch.stack([sinkhorn(x, 0.05, 3) for x in ours[:2]])
    assert not codes.requires_grad
    loss = swapped_prediction(ours, codes, 0.1)
    want = SwaVLoss()(list(theirs[:2]), list(theirs[2:]))[0]
    torch.testing.assert_close(loss, want)
    loss.backward()
    want.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_uniform_answer():
    codes = torch.eye(4)[None].expand(2, -1, -1)
    assert float(swapped_prediction(torch.ones(3, 4, 4), codes, 0.1)) == pytest.approx(math.log(4))


def test_half_precision_is_computed_in_fp32(scores):
    half = scores.bfloat16()
    codes = sinkhorn(half[0], 0.05, 3)
    assert torch.equal(codes, sinkhorn(half[0].float(), 0.05, 3))
    assert torch.equal(swapped_prediction(half, codes[None], 0.1), swapped_prediction(half.float(), codes[None], 0.1))
