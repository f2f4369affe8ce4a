import torch
from torch import nn

from miyagi.nn.ema import ema, frozen_copy


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
