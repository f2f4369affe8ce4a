"""ResNet-50 (He et al., CVPR 2016): D = 2048."""

from collections.abc import Sequence
from typing import Literal

from miyagi.nn.encoders.base import Encoder
from miyagi.nn.encoders.resnet import resnet50
from miyagi.settings import Frozen


class Settings(Frozen):
    """ResNet-50's own settings."""

    stem: Literal["small", "imagenet"] = "small"


def build(settings: Settings, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """See nn/encoders/base.py."""
    return resnet50(settings.stem, mean, std)
