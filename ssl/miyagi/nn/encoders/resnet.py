"""Residual networks (He et al., CVPR 2016) of torchvision's blocks, with a stem for small or ImageNet-sized images."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import torchvision
from torch import nn

from miyagi.nn.encoders.base import Encoder

Stem = Literal["small", "imagenet"]


class ResNet(Encoder):
    """A torchvision ResNet without its classifier; taps stem and layer1 to layer4.

    Args:
        network: e.g. torchvision.models.resnet18; called without weights.
        stem: "small": 3x3 convolution with stride 1 and no pooling (Chen et al. 2020, B.9); "imagenet": the paper's.
        mean, std: of the training images.
    """

    def __init__(
        self, network: Callable[[], torchvision.models.ResNet], stem: Stem, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(mean, std)
        full = network()
        self.dim = full.fc.in_features
        first = full.conv1
        if stem == "small":
            first = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        pool = [] if stem == "small" else [full.maxpool]
        self.min_size = 8 if stem == "small" else 32
        self.blocks = nn.ModuleDict(
            OrderedDict(
                stem=nn.Sequential(first, full.bn1, full.relu, *pool),
                layer1=full.layer1,
                layer2=full.layer2,
                layer3=full.layer3,
                layer4=full.layer4,
            )
        )


def resnet18(stem: Stem, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """D = 512."""
    return ResNet(torchvision.models.resnet18, stem, mean, std)


def resnet50(stem: Stem, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """D = 2048."""
    return ResNet(torchvision.models.resnet50, stem, mean, std)
