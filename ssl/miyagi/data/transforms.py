"""The transformations whose traces in an embedding the `invariance` protocol looks for (Chen et al., 2020, table 3).

Each gives one copy of an image, or several that are to be told apart (rotation by 90, 180 and 270 degrees). What is
random is drawn by sample index, so a copy does not depend on the batch it is made in.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.color import gray, luma
from miyagi.data.rng import Key, normal

NOISE = 0.08
"""Standard deviation of `noise`: that of Gaussian noise at severity 3 (Hendrycks and Dietterich, ICLR 2019)."""


def sobel(x: Tensor) -> Tensor:
    """The strength of edges, sqrt(gx^2 + gy^2) of the luma with Sobel's filters over 4, in three equal channels."""
    smooth, slope = (torch.tensor(taps, device=x.device) for taps in ((0.25, 0.5, 0.25), (1.0, 0.0, -1.0)))
    kernels = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]
    edges = F.conv2d(F.pad(luma(x), (1, 1, 1, 1), mode="replicate"), kernels)
    return edges.square().sum(1, keepdim=True).sqrt().clamp(max=1).expand_as(x)


def _noise(x: Tensor, index: Tensor) -> Tensor:
    drawn = normal(Key(0, 0), "transforms/noise", index, x[0].numel()).reshape(x.shape)
    return (x + NOISE * drawn).clamp(0, 1)


TRANSFORMS: dict[str, Callable[[Tensor, Tensor], list[Tensor]]] = {
    "rotation": lambda x, index: [x.rot90(turns, (2, 3)) for turns in (1, 2, 3)],
    "gray": lambda x, index: [gray(x)],
    "noise": lambda x, index: [_noise(x, index)],
    "sobel": lambda x, index: [sobel(x)],
}
"""A name -> what makes its copies of a batch: x (N x 3 x S x S in [0, 1]) and the samples' indices (N int64) to a list
of tensors like x."""
