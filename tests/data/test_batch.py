import torch

from miyagi.data.batch import Batch
from miyagi.data.rng import Key


def test_joined_is_view_by_view():
    views = [torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)]
    batch = Batch(views, torch.arange(2), torch.zeros(2), Key(0, 0))
    assert len(batch) == 2
    assert batch.joined()[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
