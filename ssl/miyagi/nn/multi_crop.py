"""Multi-crop (SwAV, Caron et al., NeurIPS 2020): a few large views of an image, and small ones that cost little."""

from itertools import groupby

import torch
from torch import Tensor

from miyagi.data.batch import View
from miyagi.nn.encoders.base import Encoder


def crops(encoder: Encoder, size: int, large: int, small: int, share: float) -> tuple[View, ...]:
    """The views to ask the loader for: first the large ones (recipe 0), then the small ones (recipe 1).

    Args:
        encoder: small views are no smaller than its `min_size`.
        size: side of the large views, in pixels.
        large, small: how many of each.
        share: side of a small view as a share of `size`.
    """
    side = min(size, max(encoder.min_size, round(share * size)))
    return (
        *(View(f"large_{i + 1}", recipe=0) for i in range(large)),
        *(View(f"small_{i + 1}", size=side, recipe=1) for i in range(small)),
    )


def encode(encoder: torch.nn.Module, views: list[Tensor]) -> Tensor:
    """V views of N images, each N x 3 x S x S, to (V N) x D, view by view.

    Neighbours of one size go through the encoder in one forward pass, and so are one BatchNorm batch.
    """
    groups = [torch.cat(list(group)) for _, group in groupby(views, key=lambda view: view.shape[2:])]
    return torch.cat([encoder(group) for group in groups])
