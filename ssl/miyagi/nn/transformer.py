"""Transformer blocks (Vaswani et al., NeurIPS 2017; Dosovitskiy et al., ICLR 2021) whose tokens are a map's places.

Nothing here depends on how the places are arranged: a block takes N x C x h x w, and a part of an image's tokens is a
map of height 1. What tells them apart is the position that is added to them once, before the first block.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)): N x C x h x w to the same.

    Args:
        width: C.
        heads: of the attention; they share out the channels.
        mlp: hidden units of the MLP as a multiple of C.
    """

    def __init__(self, width: int, heads: int, mlp: float = 4.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, int(width * mlp))
        self.fc2 = nn.Linear(int(width * mlp), width)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        n, t, c = tokens.shape
        q, k, v = self.qkv(self.norm1(tokens)).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        tokens = tokens + self.proj(mixed)
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        mapped: Tensor = tokens.transpose(1, 2).reshape(x.shape)
        return mapped


class MapNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of a map."""

    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normal.permute(0, 3, 1, 2)


def initialize(module: nn.Module) -> None:
    """As He et al. (2022): Xavier's uniform weights, no biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def positions(width: int, height: int, across: int, like: Tensor) -> Tensor:
    """Fixed sines and cosines of row and column, 1 x width x height x across (Vaswani et al., 2017; MoCo v3).

    The first half of the channels says the row, the second the column: sines, then cosines, of i / 10000^(4 k / width),
    k = 0 ... width / 4 - 1. There is nothing to learn, so an encoder takes images of any size.
    """
    rates = torch.exp(-math.log(10000.0) * 4 / width * torch.arange(width // 4, device=like.device))
    rows, columns = (torch.arange(n, device=like.device)[None] * rates[:, None] for n in (height, across))
    row, column = torch.cat([rows.sin(), rows.cos()]), torch.cat([columns.sin(), columns.cos()])
    grid = [row[:, :, None].expand(-1, -1, across), column[:, None, :].expand(-1, height, -1)]
    return torch.cat(grid)[None].to(like.dtype)
