import pytest
import torch
from torch import nn

from miyagi.nn.ema import cosine_momentum, ema, frozen_copy


def test_by_hand():
    source = nn.Linear(1, 1)
    target = frozen_copy(source)
    with torch.no_grad():
        source.weight.fill_(1.0)
        target.weight.fill_(0.0)
    for _ in range(2):
        ema(target, source, 0.9)
    assert torch.allclose(target.weight, torch.tensor(1 - 0.9**2))
    assert not target.weight.requires_grad


def test_buffers_stay_the_targets_own():
    source = nn.BatchNorm1d(2)
    target = frozen_copy(source)
    source(torch.rand(8, 2))
    ema(target, source, 0.5)
    assert torch.equal(target.running_mean, torch.zeros(2))


def test_momentum_rises_by_a_cosine():
    """Worked out by hand: at a third of the training the cosine is 1/2, so 1/4 of 0.004 is gone."""
    assert [cosine_momentum(0.996, x) for x in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx([0.996, 0.997, 0.998, 1.0])
    assert cosine_momentum(1.0, 0.3) == 1.0
