import math

import torch

from miyagi.nn.partition import Partition


def test_the_mean_of_the_first_and_then_constant():
    partition = Partition(100, batches=3)
    found = [float(partition(torch.tensor(math.log(z)))) for z in (2.0, 4.0, 9.0, 1e6, 1e9)]
    for got, want in zip(found, (2, 3, 5, 5, 5), strict=True):
        assert math.isclose(got, math.log(want), rel_tol=1e-6)


def test_at_a_small_temperature():
    """log Z of 1000 and more: Z itself would overflow."""
    partition = Partition(100, batches=2)
    partition(torch.tensor(1000.0))
    assert math.isclose(float(partition(torch.tensor(1000.0))), 1000, rel_tol=1e-6)


def test_a_resume_goes_on_counting():
    one, other = Partition(10, batches=2), Partition(10, batches=2)
    one(torch.tensor(1.0))
    other.load_state_dict(one.state_dict())
    for estimate in (2.0, 7.0):
        assert torch.equal(one(torch.tensor(estimate)), other(torch.tensor(estimate)))
    assert int(other.seen) == 2
