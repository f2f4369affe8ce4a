import pytest
import torch
from lightly.models.modules import heads as lightly
from torch import nn

from miyagi.nn import heads
from miyagi.settings import Head


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        (Head(kind="none"), []),
        (Head(kind="linear"), [nn.Linear]),
        (Head(kind="linear", out_batch_norm=True), [nn.Linear, nn.BatchNorm1d]),
        (Head(depth=2, batch_norm=True), [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]),
        (Head(depth=2, activation="gelu"), [nn.Linear, nn.GELU] * 2 + [nn.Linear]),
    ],
)
def test_layers_and_width(settings, kinds):
    head = heads.build(settings, 12)
    assert [type(layer) for layer in head] == kinds
    assert head(torch.rand(4, 12)).shape == (4, heads.out_width(settings, 12))


def test_none_is_the_identity():
    x = torch.rand(3, 5)
    assert torch.equal(heads.build(Head(kind="none"), 5)(x), x)


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        (Head(width=16, out=8), lightly.MoCoProjectionHead(12, 16, 8, num_layers=2, batch_norm=False)),
        (Head(width=16, out=8, batch_norm=True), lightly.BYOLProjectionHead(12, 16, 8)),
        (Head(width=16, out=8, batch_norm=True), lightly.SwaVProjectionHead(12, 16, 8)),
        (Head(width=16, out=8, batch_norm=True), lightly.SimSiamPredictionHead(12, 16, 8)),
        (
            Head(width=16, out=8, batch_norm=True, depth=2, out_batch_norm=True),
            lightly.SimSiamProjectionHead(12, 16, 8),
        ),
        (Head(width=16, out=8, batch_norm=True, depth=2), lightly.VICRegProjectionHead(12, 16, 8)),
    ],
)
def test_the_papers_heads(settings, theirs):
    """With the same weights and in training mode, ours is lightly's; where both have a bias, it is the same one."""
    torch.manual_seed(0)
    ours, theirs = heads.build(settings, 12), theirs.layers
    blocks = [[m for m in net if isinstance(m, nn.Linear | nn.BatchNorm1d)] for net in (ours, theirs)]
    for mine, other in zip(*blocks, strict=True):
        assert type(mine) is type(other)
        if isinstance(mine, nn.Linear):
            mine.weight.data.copy_(other.weight)
            if mine.bias is not None:
                mine.bias.data.copy_(other.bias if other.bias is not None else torch.zeros_like(mine.bias))
        else:
            assert mine.affine == other.affine
    x = torch.randn(32, 12)
    torch.testing.assert_close(ours(x), theirs(x))


def test_out_batch_norm_has_nothing_to_learn_and_standardises():
    head = heads.build(Head(kind="linear", out=8, out_batch_norm=True), 12)
    assert [tuple(p.shape) for p in head.parameters()] == [(8, 12)]
    y = head(torch.randn(500, 12))
    torch.testing.assert_close(y.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(8), atol=1e-3, rtol=0)


def test_prototypes():
    torch.manual_seed(0)
    prototypes, x = heads.Prototypes(12, 5), torch.randn(7, 12)
    want = torch.cosine_similarity(x[:, None], prototypes.weight[None], dim=2)
    torch.testing.assert_close(prototypes(x), want)
    with torch.no_grad():  # lengths do not matter, of neither
        prototypes.weight.mul_(torch.rand(5, 1) + 0.5)
    torch.testing.assert_close(prototypes(3 * x), want)
    # DINO's last layer: weight normalisation, of length 1.
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(12, 5, bias=False))
    theirs.parametrizations.weight.original0.data.fill_(1)
    theirs.parametrizations.weight.original1.data.copy_(prototypes.weight)
    torch.testing.assert_close(prototypes(x), theirs(nn.functional.normalize(x, dim=1)))
