"""Two half encoders side by side: one sees how light an image is, the other its colours (Zhang et al., CVPR 2017).

    f(x) = [f_1(L), f_2(ab)],  (L, a, b) = Lab(x)

This is what split-brain autoencoders and CMC (Tian et al., ECCV 2020) train, half against half, and what downstream
keeps: the concatenation. Both halves are one encoder of any kind, built twice; it has three channels, so L stands in
all three, and a and b in the first two with nought in the third. The halves see (L - 50) / 50, a / 110 and b / 110,
scaled by what sRGB can show and not by the data: grey is 0 in every data set.
A method asks for a pair by `encoder_pair = True` in its settings; `experiments.E.encoder: {name: pair, of: {...}}` says
it by hand, e.g. for a random floor with the same encoder.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from miyagi.data.lab import rgb_to_lab
from miyagi.nn.encoders import base
from miyagi.nn.encoders.base import Encoder
from miyagi.settings import Frozen

AB_REACH = 110.0
"""No colour that sRGB can show has an a or b outside -110 to 110."""


class Settings(Frozen):
    """A pair's own settings."""

    split: Literal["lab"] = Field("lab", description="the first half sees L, the second a and b")
    of: dict[str, Any] = Field(
        {"name": "conv4", "width": 32, "grid": 2}, description="the encoder of each half; D = 2 D of a half"
    )

    @model_validator(mode="after")
    def _flat(self) -> "Settings":
        if self.of.get("name") == "pair":
            raise ValueError("the halves of a pair cannot be pairs")
        return self


class Pair(Encoder):
    """Concatenates what its halves give: vectors, and maps channel by channel. `blocks` are the halves' own.

    Attributes:
        first, second: the encoders of L and of ab; what they take is what `split` gives.
    """

    def __init__(self, first: Encoder, second: Encoder, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(mean, std)
        self.first, self.second = first, second
        self.dim = first.dim + second.dim
        self.min_size = first.min_size

    @property
    def layers(self) -> list[str]:
        return self.first.layers

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RGB in [0, 1] to what the two halves take: L, and ab, each N x 3 x H x W in [0, 1]."""
        return halves(rgb_to_lab(x))

    def maps(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        light, color = self.split(x)
        second = self.second.maps(color, layers)
        return {name: torch.cat([first, second[name]], 1) for name, first in self.first.maps(light, layers).items()}

    def pool(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat([self.first.pool(first), self.second.pool(second)], 1)

    def forward(self, x: Tensor) -> Tensor:
        light, color = self.split(x)
        return torch.cat([self.first(light), self.second(color)], 1)


def halves(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Lab (N x 3 x H x W) to what a pair's halves take: L three times, and (a, b, nought), both in [0, 1]."""
    light = (lab[:, :1] / 100).expand(-1, 3, -1, -1)
    color = torch.cat([lab[:, 1:] / AB_REACH, torch.zeros_like(lab[:, :1])], 1) / 2 + 0.5
    return light.contiguous(memory_format=torch.channels_last), color.contiguous(memory_format=torch.channels_last)


def build(settings: Settings, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """See nn/encoders/base.py."""
    middle = (0.5, 0.5, 0.5)
    return Pair(base.build(settings.of, middle, middle), base.build(settings.of, middle, middle), mean, std)
