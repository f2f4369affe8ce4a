"""Conv-4: the small encoder of the few-shot papers (Vinyals et al., NeurIPS 2016), the default on a CPU.

Four blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max pooling; 28 MFLOP an image at 32 pixels and width 64.
Pooling stands before ReLU, not after it as in the paper: both are monotonic, so values and gradients are the same, and
ReLU has a quarter of the work; so has BatchNorm where blocks are fused (nn/conv_norm_pool.py). The last map is pooled
to grid x grid (no change at 32 pixels with the default 2), so D does not depend on the image.
"""

from collections import OrderedDict
from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.nn.conv_norm_pool import ConvNormPool
from miyagi.nn.encoders.base import Encoder
from miyagi.settings import Frozen


class Settings(Frozen):
    """Conv-4's own settings."""

    width: int = Field(64, ge=1, description="channels of every block")
    grid: int = Field(2, ge=1, description="the last map is pooled to grid x grid; D = width grid^2")
    fused: bool = Field(True, description="train each block in fewer passes over memory, on a CPU in fp32")


class Conv4(Encoder):
    """D = width x grid^2; taps conv1 to conv4."""

    def __init__(self, settings: Settings, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(mean, std)
        widths = [3, *[settings.width] * 4]
        self.grid = settings.grid
        self.dim = settings.width * settings.grid**2
        self.blocks = nn.ModuleDict(
            OrderedDict(
                (f"conv{i + 1}", ConvNormPool(widths[i], widths[i + 1], fused=settings.fused))
                for i in range(4)
            )
        )  # fmt: skip

    def pool(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.grid, self.grid):  # its gradient on a GPU is not deterministic, so only where it must
            x = F.adaptive_avg_pool2d(x, self.grid)
        return x.flatten(1)


def build(settings: Settings, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """See nn/encoders/base.py."""
    return Conv4(settings, mean, std)
