"""Operations on the colours of each pixel: luma, greyness, solarisation, colour dropping.

All take N x 3 x H x W floats in [0, 1]. Nothing here branches by pixel: torch's `where` costs a CPU as much as thirty
sums.
"""

from torch import Tensor
from torch.nn import functional as F

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R BT.601, the weights that PIL and torchvision use."""


def luma(x: Tensor) -> Tensor:
    """N x 1 x H x W."""
    red, green, blue = x.split(1, 1)
    shade: Tensor = red * LUMA[0]
    return shade.add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def gray(x: Tensor) -> Tensor:
    """Luma in three equal channels."""
    return luma(x).expand_as(x)


def mean(x: Tensor) -> Tensor:
    """The mean over each image's pixels: N x C x H x W -> N x C x 1 x 1."""
    return total(x) / (x.shape[2] * x.shape[3])


def total(x: Tensor) -> Tensor:
    """The sum over each image's pixels: N x C x H x W -> N x C x 1 x 1."""
    if x.shape[2] * x.shape[3] < 2**15:
        return x.sum((2, 3), keepdim=True)
    return x.sum(3, keepdim=True).sum(2, keepdim=True)  # one long sum, torch would share out among threads


def solarize(x: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert what is at least as bright as the threshold."""
    bright = (x >= threshold).to(x.dtype)
    return x * (1 - bright) + (1 - x) * bright


def drop_colors(x: Tensor, kept: Tensor, noise: Tensor | None) -> Tensor:
    """Keep one channel, so that chromatic aberration gives no position away (Doersch et al., ICCV 2015, section 3.1).

    Args:
        x: N x 3 x H x W.
        kept: N, int64: which channel stays.
        noise: standard normal draws shaped like x: the other two become grey with a hundredth of the kept channel's
            standard deviation in noise. None: they become copies of it.
    """
    stays = F.one_hot(kept, 3).to(x.dtype)[:, :, None, None]
    channel = (x * stays).sum(1, keepdim=True)
    if noise is None:
        return channel.expand_as(x)
    std = mean((channel - mean(channel)).square()).sqrt()
    return (x * stays + (0.5 + noise * (std / 100)) * (1 - stays)).clamp(0, 1)
