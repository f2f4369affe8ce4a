import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from miyagi.nn.explained import explained
from tests.processes import together


def numbers():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(8, 3, 5, generator=generator) * torch.arange(1.0, 9)[:, None, None] + 2
    return target, target + 0.5 * torch.randn(8, 3, 5, generator=generator)


def test_by_scikit_learn():
    target, answer = numbers()
    want = r2_score(target.flatten().numpy(), answer.flatten().numpy())
    assert float(explained((answer - target).square().mean(), target)) == pytest.approx(want, rel=1e-4)


def test_the_right_answer_and_the_mean():
    target, _ = numbers()
    assert explained(torch.tensor(0.0), target) == 1
    assert float(explained((target - target.mean()).square().mean(), target)) == pytest.approx(0, abs=1e-6)


def test_a_target_without_variance_gives_a_number():
    assert np.isfinite(float(explained(torch.tensor(0.1), torch.ones(4))))


def part(rank):
    target, answer = (x.chunk(2)[rank] for x in numbers())
    return explained((answer - target).square().mean(), target)


def test_the_mean_over_two_processes_is_what_one_finds(tmp_path):
    target, answer = numbers()
    found = together(tmp_path, 2, part)
    assert found[0] != found[1]
    torch.testing.assert_close(sum(found) / 2, explained((answer - target).square().mean(), target))
