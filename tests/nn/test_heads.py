import pytest
import torch
from torch import nn

from miyagi.nn import heads
from miyagi.settings import Head


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        (Head(kind="none"), []),
        (Head(kind="linear"), [nn.Linear]),
        (Head(depth=2, batch_norm=True), [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]),
    ],
)
def test_layers_and_width(settings, kinds):
    head = heads.build(settings, 12)
    assert [type(layer) for layer in head] == kinds
    assert head(torch.rand(4, 12)).shape == (4, heads.out_width(settings, 12))


def test_none_is_the_identity():
    x = torch.rand(3, 5)
    assert torch.equal(heads.build(Head(kind="none"), 5)(x), x)
