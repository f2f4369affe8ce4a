"""ViT-Tiny: a small vision transformer (Dosovitskiy et al., ICLR 2021), sized as DeiT-Ti (Touvron et al., ICML 2021).

An image is cut into patches; each becomes a token by one linear map, a fixed position is added to it, and blocks of
attention and MLP follow, with a LayerNorm after the last one. There is no class token: the vector is the mean over the
tokens (He et al., CVPR 2022, A.1: as good), and every tap is a map of tokens. 5.4 million parameters; at 32 pixels and
patches of 4, 64 tokens and 0.35 GFLOP an image, 13 times Conv-4's: on a CPU take {depth: 4, width: 96}.

What does not fill a patch at the right and at the bottom is not seen.
"""

from collections import OrderedDict
from collections.abc import Sequence

from pydantic import Field, model_validator
from torch import Tensor, nn

from miyagi.nn.encoders.base import Encoder
from miyagi.nn.transformer import Block, MapNorm, positions
from miyagi.settings import Frozen


class Settings(Frozen):
    """ViT-Tiny's own settings."""

    patch: int = Field(4, ge=1, le=32, description="side of a patch, in pixels; the paper's 16 is for 224 pixels")
    width: int = Field(192, ge=4, description="D, channels of a token; a multiple of 4 and of heads")
    depth: int = Field(12, ge=1, le=48, description="blocks")
    heads: int = Field(3, ge=1, description="of each attention")

    @model_validator(mode="after")
    def _shared_out(self) -> "Settings":
        if self.width % 4 or self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of 4 and of heads {self.heads}")
        return self


class Patches(nn.Module):
    """N x 3 x H x W to tokens with their positions, N x D x H / patch x W / patch."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, patch, stride=patch)
        nn.init.xavier_uniform_(self.conv.weight.view(width, -1))
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.conv(x)
        return tokens + positions(tokens.shape[1], tokens.shape[2], tokens.shape[3], tokens)


class ViT(Encoder):
    """D = width; taps embed and block1 to block<depth>.

    Attributes:
        patch: side of a patch, in pixels.
    """

    def __init__(self, settings: Settings, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(mean, std)
        self.patch = settings.patch
        self.dim = settings.width
        self.min_size = 2 * settings.patch
        blocks: list[nn.Module] = [Block(settings.width, settings.heads) for _ in range(settings.depth)]
        blocks[-1] = nn.Sequential(blocks[-1], MapNorm(settings.width, eps=1e-6))
        named = [(f"block{i + 1}", block) for i, block in enumerate(blocks)]
        self.blocks = nn.ModuleDict(OrderedDict([("embed", Patches(settings.patch, settings.width)), *named]))


def build(settings: Settings, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """See nn/encoders/base.py."""
    return ViT(settings, mean, std)
