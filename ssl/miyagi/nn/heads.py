"""Heads: what stands on the encoder while it trains and is taken off (but kept) afterwards."""

from torch import nn

from miyagi.settings import Head


def build(settings: Head, width: int) -> nn.Sequential:
    """A projection head for features of `width` dimensions; empty for kind "none", whose output is its input."""
    layers: list[nn.Module] = []
    if settings.kind == "mlp":
        for _ in range(settings.depth):
            layers.append(nn.Linear(width, settings.width, bias=not settings.batch_norm))
            if settings.batch_norm:
                layers.append(nn.BatchNorm1d(settings.width))
            layers.append(nn.ReLU(inplace=True))
            width = settings.width
    if settings.kind != "none":
        layers.append(nn.Linear(width, settings.out))
    return nn.Sequential(*layers)


def out_width(settings: Head, width: int) -> int:
    """The width of the head's output for features of `width` dimensions."""
    return width if settings.kind == "none" else settings.out
