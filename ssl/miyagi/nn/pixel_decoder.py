"""From an encoder's last map to scores for every place of a finer picture."""

from torch import nn

from miyagi.nn.encoders.base import Encoder, map_shapes


class PixelDecoder(nn.Sequential):
    """1x1 convolution, ReLU, 1x1 convolution at `out`'s resolution: N x C x h x w -> N x classes x (h k) x (w k).

    Each place of the map answers for k x k places of the picture (sub-pixel convolution, Shi et al., CVPR 2016), so
    what stands where inside of it must be in the map's channels: the encoder's job, not the decoder's.

    Args:
        channels: C, of the map.
        scale: k.
        width: channels in between, for each place of the picture.
        classes: scores a place.
    """

    def __init__(self, channels: int, scale: int, width: int, classes: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width * scale**2, 1), nn.PixelShuffle(scale), nn.ReLU(), nn.Conv2d(width, classes, 1)
        )


def last_map(encoder: Encoder, size: int) -> tuple[int, int]:
    """Channels and side of the encoder's last map for images of `size` pixels."""
    return map_shapes(encoder, size)[encoder.layers[-1]]


def scale_for(side: int, size: int, stride: int) -> int:
    """k, so that a map of `side` decoded to side k has about one place for each stride x stride pixels of `size`."""
    return max(1, round(size / (stride * side)))
