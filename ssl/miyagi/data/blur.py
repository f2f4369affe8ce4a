"""Gaussian blur with a standard deviation for each sample."""

import torch
from torch import Tensor
from torch.nn import functional as F


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, reflected at the borders; the kernel covers a tenth of the side (SimCLR), 3 pixels at least.

    Args:
        x: N x 3 x H x W.
        sigma: N, in pixels.
    """
    n, channels, height, width = x.shape
    radius = min(max(1, round(max(height, width) * 0.1) // 2), height - 1, width - 1)
    kernel = torch.exp(-0.5 * (torch.arange(radius + 1, device=x.device) / sigma[:, None]) ** 2)
    kernel = kernel / (2 * kernel.sum(1, keepdim=True) - 1)  # the middle weighs 1 and is there once
    # Channel by channel. Along a sample's memory, the neighbours in a row are 1 apart and those in a column one padded
    # row; what runs over the ends of rows lands in the padding, which is cut off.
    padded = F.pad(x.transpose(0, 1), (radius,) * 4, mode="reflect")
    wide = width + 2 * radius
    line = _convolve(_convolve(padded.flatten(2), kernel, 1), kernel, wide)
    return line.as_strided((n, channels, height, width), (line.stride(1), line.stride(0), wide, 1))


def _convolve(line: Tensor, kernel: Tensor, step: int) -> Tensor:
    """Symmetric convolution along the lines (C x N x L) with taps `step` apart; kernel (N x radius + 1): middle first.

    Returns:
        C x N x (L - 2 radius step): only where all taps are on the line.
    """
    radius = kernel.shape[1] - 1
    length = line.shape[2] - 2 * radius * step

    def tap(offset: int) -> Tensor:
        start = (radius + offset) * step
        return line[..., start : start + length]

    total = tap(0) * kernel[:, :1]
    for offset in range(1, radius + 1):
        total.addcmul_(tap(-offset) + tap(offset), kernel[:, offset : offset + 1])
    return total
