import math
from functools import partial

import torch
from timm.models.vision_transformer import Block as TimmBlock

from miyagi.nn.transformer import Block, MapNorm, positions


def test_a_block_is_timms():
    torch.manual_seed(0)
    ours, theirs = Block(12, 3), TimmBlock(12, 3, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
    names = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    state = {}
    for key, value in ours.state_dict().items():
        layer, _, kind = key.partition(".")
        value.copy_(torch.randn(value.shape) * 0.3)
        state[f"{names.get(layer, layer)}.{kind}"] = value
    theirs.load_state_dict(state)
    x = torch.randn(2, 12, 4, 5)
    want = theirs(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (4, 5))
    torch.testing.assert_close(ours(x), want, rtol=1e-4, atol=1e-5)


def test_places_may_be_arranged_in_any_way():
    torch.manual_seed(0)
    block, x, order = Block(8, 2), torch.randn(3, 8, 4, 4), torch.randperm(16)
    torch.testing.assert_close(block(x.flatten(2)[:, :, None, order]), block(x).flatten(2)[:, :, None, order])


def test_a_norm_of_each_place():
    x = torch.randn(2, 6, 3, 4) * 5 + 1
    normal = MapNorm(6)(x)
    torch.testing.assert_close(normal.mean(1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(1, correction=0), torch.ones(2, 3, 4), atol=1e-3, rtol=0)


def test_positions_by_hand():
    grid = positions(8, 3, 5, torch.zeros(1))
    assert grid.shape == (1, 8, 3, 5)
    row, column = 2, 4
    want = [f(i * r) for i in (row, column) for f in (math.sin, math.cos) for r in (1, 0.01)]
    torch.testing.assert_close(grid[0, :, row, column], torch.tensor(want))
    assert len(grid[0].flatten(1).T.unique(dim=0)) == 15  # no two places alike
    assert torch.equal(positions(8, 2, 2, torch.zeros(1)), grid[:, :, :2, :2])  # whatever the image's size
