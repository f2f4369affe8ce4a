"""ResNet-18 (He et al., CVPR 2016): D = 512."""

from collections.abc import Sequence
from typing import Literal

from miyagi.nn.encoders.base import Encoder
from miyagi.nn.encoders.resnet import resnet18
from miyagi.settings import Frozen


class Settings(Frozen):
    """ResNet-18's own settings."""

    stem: Literal["small", "imagenet"] = "small"


def build(settings: Settings, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """See nn/encoders/base.py."""
    return resnet18(settings.stem, mean, std)
