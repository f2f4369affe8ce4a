"""What every encoder is: RGB in, frozen features out, with taps on the way."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.errors import UserError


class Encoder(nn.Module):
    """Maps RGB images in [0, 1] to vectors; owns its normalisation, so that no consumer can get it wrong.

    A subclass sets `blocks` (an ordered mapping of layer name to module, applied in turn) and `dim`, and may
    override `pool`.

    Attributes:
        blocks: the layers; each name is a tap.
        dim: D, the width of `forward`.
        min_size: the smallest side, in pixels, that the layers can take.
    """

    blocks: nn.ModuleDict
    dim: int
    min_size: int = 16
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        # A channel that never varies would divide by 0.
        self.register_buffer("std", torch.tensor(std).clamp(min=1e-3).reshape(1, 3, 1, 1))

    @property
    def layers(self) -> list[str]:
        """The names of the taps, first to last."""
        return list(self.blocks)

    def normalize(self, x: Tensor) -> Tensor:
        """N x 3 x H x W in [0, 1] to zero mean and unit deviation over the training split."""
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(f"{type(self).__name__} takes images of at least {self.min_size} pixels, got {x.shape[3]}")
        return (x - self.mean) / self.std

    def pool(self, x: Tensor) -> Tensor:
        """The last map (N x C x H x W) to N x D."""
        return x.mean((2, 3))

    def maps(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The maps of `layers` (default: all), each N x C x H x W."""
        wanted = set(self.layers if layers is None else layers)
        found = {}
        x = self.normalize(x)
        for name, block in self.blocks.items():
            x = block(x)
            if name in wanted:
                found[name] = x
        return found

    def taps(self, x: Tensor, dimensions: int) -> dict[str, Tensor]:
        """Every layer as N x D_l, D_l <= dimensions (or its number of channels, if that is more), and `encoder`.

        A map is pooled to the largest square grid that fits (Goyal et al., ICCV 2019); pooling an early layer
        globally would under-report it.
        """
        maps = self.maps(x)
        flat = {name: pool_to(map_, dimensions) for name, map_ in maps.items()}
        return {**flat, "encoder": self.pool(maps[self.layers[-1]])}

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W in [0, 1] to N x D."""
        x = self.normalize(x)
        for block in self.blocks.values():
            x = block(x)
        return self.pool(x)


def pool_to(x: Tensor, dimensions: int) -> Tensor:
    """N x C x H x W to N x (C g g), g the largest grid with C g g <= dimensions; at least global pooling."""
    grid = max(1, math.isqrt(dimensions // x.shape[1]))
    return F.adaptive_avg_pool2d(x, (min(grid, x.shape[2]), min(grid, x.shape[3]))).flatten(1)


@torch.no_grad()
def map_shapes(encoder: Encoder, size: int) -> dict[str, tuple[int, int]]:
    """Channels and side of each layer's map for images of `size` pixels."""
    training = encoder.training
    encoder.eval()  # BatchNorm's statistics stay as they are
    maps = encoder.maps(encoder.mean.new_zeros(1, 3, size, size))
    encoder.train(training)
    return {name: (map_.shape[1], map_.shape[3]) for name, map_ in maps.items()}


def check_size(encoder: Encoder, name: str, size: int, key: str) -> None:
    """Raise a UserError that names `key` where images of `size` pixels are smaller than the encoder can take."""
    if size < encoder.min_size:
        raise UserError(f"{key}: {size} pixels, but {name} takes at least {encoder.min_size}")


def build(settings: dict[str, Any], mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """The encoder that `settings` describe ("name" and the encoder's own), initialised from torch's global seed."""
    from miyagi.registry import ENCODERS

    own = {key: value for key, value in settings.items() if key != "name"}
    module = ENCODERS.load(settings["name"])
    encoder: Encoder = module.build(module.Settings(**own), mean, std)
    return encoder.to(memory_format=torch.channels_last)
