import dataclasses

import pytest
import torch

from miyagi.data.batch import Batch
from miyagi.data.rng import Key
from miyagi.errors import UserError


def test_joined_is_view_by_view():
    views = [torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)]
    batch = Batch(views, torch.arange(2), torch.zeros(2), Key(0, 0))
    assert len(batch) == 2
    assert batch.joined()[:, 0, 0, 0].tolist() == [0, 0, 1, 1]


def test_a_method_that_needs_colours_refuses_grey(info):
    info.require_color("colorization")
    with pytest.raises(UserError, match=r"^colorization learns from colours, but .* all grey: set `dataset`") as error:
        dataclasses.replace(info, color=False).require_color("colorization")
    assert "\n" not in str(error.value)
