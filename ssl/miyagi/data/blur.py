"""Gaussian blur with a standard deviation for each sample."""

import torch
from torch import Tensor
from torch.nn import functional as F

BY_MATRICES = 128
"""Longest side, in pixels, up to which two matrix products are faster than sums of shifted images: 1.4 to 1.8 times at
32 to 128 pixels on 2 cores, not any more at 160."""
CHUNK = 2**18
"""Numbers in images that are shifted and summed at a time: what is summed stays in a core's cache."""


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, reflected at the borders; the kernel covers a tenth of the side (SimCLR), 3 pixels at least.

    Args:
        x: N x 3 x H x W.
        sigma: N, in pixels.
    """
    height, width = x.shape[2:]
    radius = min(max(1, round(max(height, width) * 0.1) // 2), height - 1, width - 1)
    kernel = torch.exp(-0.5 * (torch.arange(radius + 1, device=x.device) / sigma[:, None]) ** 2)
    kernel = kernel / (2 * kernel.sum(1, keepdim=True) - 1)  # the middle weighs 1 and is there once
    if max(height, width) <= BY_MATRICES:
        return _by_matrices(x, kernel)
    count = max(1, CHUNK // x[0].numel())
    return torch.cat([_by_taps(*part) for part in zip(x.split(count), kernel.split(count), strict=True)])


def _by_matrices(x: Tensor, kernel: Tensor) -> Tensor:
    """K_h x K_w' of each channel, where row i of a K holds the weights that make pixel i of all pixels of a line."""
    n, channels, height, width = x.shape
    along_rows = _matrices(kernel, width)
    along_columns = along_rows if height == width else _matrices(kernel, height)
    x = x.reshape(n, channels * height, width) @ along_rows.transpose(1, 2)
    along_columns = along_columns[:, None].expand(n, channels, height, height).reshape(-1, height, height)
    return (along_columns @ x.view(-1, height, width)).view(n, channels, height, width)


def _matrices(kernel: Tensor, side: int) -> Tensor:
    """N x side x side: a kernel (N x radius + 1, middle first) as the matrix that convolves reflected lines with it."""
    taps = kernel.shape[1]
    lines = F.pad(torch.eye(side, device=kernel.device), (taps - 1,) * 2, mode="reflect")
    each = _convolve(lines[:, None], torch.eye(taps, device=kernel.device), 1)  # input pixel x tap x output pixel
    return (kernel @ each.permute(1, 2, 0).reshape(taps, -1)).view(-1, side, side)


def _by_taps(x: Tensor, kernel: Tensor) -> Tensor:
    """Sums of shifted images, channel by channel.

    Along a sample's memory, the neighbours in a row are 1 apart and those in a column one padded row; what runs over
    the ends of rows lands in the padding, which is cut off.
    """
    n, channels, height, width = x.shape
    radius = kernel.shape[1] - 1
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
