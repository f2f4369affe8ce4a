import pytest
import torch
from torch.nn.functional import normalize

from miyagi.nn.memory_bank import MemoryBank


def test_by_hand():
    bank = MemoryBank(3, 2, momentum=0.5)
    bank.features.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    # Of any length: at unit length, halfway between (1, 0) and (0, 1), and at unit length again.
    bank.update(torch.tensor([2]), torch.tensor([[0.0, 7.0]]))
    half = 0.5**0.5
    torch.testing.assert_close(bank.features, torch.tensor([[1.0, 0.0], [0.0, 1.0], [half, half]]))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
def test_a_moving_average_by_index(momentum):
    torch.manual_seed(0)
    bank = MemoryBank(10, 4, momentum)
    before, new, index = bank.features.clone(), torch.randn(3, 4), torch.tensor([7, 0, 4])
    bank.update(index, new)
    for i in range(10):
        want = before[i]
        if i in index.tolist():
            want = normalize(
                momentum * before[i] + (1 - momentum) * normalize(new[index.tolist().index(i)], dim=0), dim=0
            )
        torch.testing.assert_close(bank.features[i], want)


def test_an_image_that_occurs_twice_moves_once_to_the_mean():
    torch.manual_seed(0)
    twice, once = MemoryBank(5, 4), MemoryBank(5, 4)
    once.load_state_dict(twice.state_dict())
    a, b, c = normalize(torch.randn(3, 4), dim=1)
    twice.update(torch.tensor([3, 1, 3]), torch.stack([a, b, c]))
    once.update(torch.tensor([3, 1]), torch.stack([a + c, b]))
    torch.testing.assert_close(twice.features, once.features)


def test_without_normalisation():
    bank = MemoryBank(2, 2, 0.75, normalize=False)
    bank.features.copy_(torch.tensor([[4.0, 0.0], [1.0, 1.0]]))
    bank.update(torch.tensor([0]), torch.tensor([[0.0, 8.0]]))
    torch.testing.assert_close(bank.features, torch.tensor([[3.0, 2.0], [1.0, 1.0]]))


def test_it_starts_at_unit_length_takes_no_gradient_and_survives_a_resume():
    bank, other = MemoryBank(6, 4), MemoryBank(6, 4)
    torch.testing.assert_close(bank.features.norm(dim=1), torch.ones(6))
    bank.update(torch.tensor([1]), torch.rand(1, 4, requires_grad=True))
    assert not bank.features.requires_grad and list(bank.parameters()) == []
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.features, bank.features)
