"""A memory bank: one feature an image, a moving average over the epochs (Wu et al., CVPR 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.nn.gather import gather_detached


class MemoryBank(nn.Module):
    """n features, random at first, found by the image's index; its content survives a resume.

    Args:
        n: images.
        width: dimensions of a feature.
        momentum: m of f <- m f + (1 - m) v (paper: 0.5); 0: the last feature alone.
        normalize: keep features at unit length, as the paper does.
    """

    features: Tensor

    def __init__(self, n: int, width: int, momentum: float = 0.5, *, normalize: bool = True) -> None:
        super().__init__()
        self.momentum = momentum
        self.normalize = normalize
        self.register_buffer("features", F.normalize(torch.randn(n, width), dim=1))

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """Move the features of the images `index` (N, int64) towards `features` (N x width).

        An image that occurs several times (as two views, or in a padded batch) is moved once, towards their mean.
        With several processes each gives its own images, and all come to hold the same bank.
        """
        index, features = gather_detached(index), gather_detached(features)
        images, place, times = index.unique(return_inverse=True, return_counts=True)
        new = self._unit(features.to(self.features.dtype))
        mean = torch.zeros_like(self.features[images]).index_add_(0, place, new)
        mean = self._unit(mean / times[:, None])
        self.features[images] = self._unit(torch.lerp(mean, self.features[images], self.momentum))

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) if self.normalize else x
