"""Heads: what stands on the encoder while it trains and is taken off (but kept) afterwards."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.settings import Head

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": lambda: nn.ReLU(inplace=True), "gelu": nn.GELU}


def build(settings: Head, width: int) -> nn.Sequential:
    """A projection head, or a predictor, for `width` dimensions; empty for kind "none", whose output is its input.

    A layer that a BatchNorm follows has no bias, which the normalisation would take out again. SimCLR, MoCo v2 and
    SwAV: one hidden layer; BYOL: one with batch_norm, projector and predictor alike; SimSiam: two with batch_norm and
    out_batch_norm, predictor one with batch_norm; Barlow Twins and VICReg: two with batch_norm; DINO: two with gelu.
    """
    layers: list[nn.Module] = []
    if settings.kind == "mlp":
        for _ in range(settings.depth):
            layers.append(nn.Linear(width, settings.width, bias=not settings.batch_norm))
            if settings.batch_norm:
                layers.append(nn.BatchNorm1d(settings.width))
            layers.append(ACTIVATIONS[settings.activation]())
            width = settings.width
    if settings.kind != "none":
        layers.append(nn.Linear(width, settings.out, bias=not settings.out_batch_norm))
        if settings.out_batch_norm:
            layers.append(nn.BatchNorm1d(settings.out, affine=False))
    return nn.Sequential(*layers)


def out_width(settings: Head, width: int) -> int:
    """The width of the head's output for features of `width` dimensions."""
    return width if settings.kind == "none" else settings.out


class Prototypes(nn.Module):
    """Cosines with C learned directions: s_c = (x / |x|) . (w_c / |w_c|), N x D -> N x C.

    SwAV's prototypes (Caron et al., NeurIPS 2020) and DINO's last layer (Caron et al., ICCV 2021: weight normalisation
    with the length fixed to 1).

    Args:
        width: D.
        number: C.
    """

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(number, width), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))
