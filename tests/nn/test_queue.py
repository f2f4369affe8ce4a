import torch

from miyagi.nn.queue import Queue


def rows(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, 2)


def test_order_and_wrap():
    queue = Queue(5, 2)
    queue.push(rows(1, 2, 3))
    assert queue.keys[:3, 0].tolist() == [1, 2, 3]
    queue.push(rows(4, 5, 6))
    assert queue.keys[:, 0].tolist() == [6, 2, 3, 4, 5]
    assert int(queue.position) == 1


def test_more_than_it_holds_keeps_the_last():
    queue = Queue(3, 2)
    queue.push(rows(1, 2, 3, 4, 5))
    assert sorted(queue.keys[:, 0].tolist()) == [3, 4, 5]
    queue.push(rows(6))  # overwrites the oldest, 3
    assert sorted(queue.keys[:, 0].tolist()) == [4, 5, 6]


def test_it_starts_at_unit_length_and_survives_a_resume():
    queue, other = Queue(7, 4), Queue(7, 4)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(7))
    queue.push(torch.rand(3, 4))
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.keys, queue.keys)
    assert int(other.position) == 3
