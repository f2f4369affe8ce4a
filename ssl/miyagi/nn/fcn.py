"""FCN: from an encoder's maps to numbers for every pixel (Long, Shelhamer and Darrell, CVPR 2015).

    z_L = W_L relu(BN(conv3x3(m_L))),   z_l = up(z_{l+1}) + W_l m_l,   y = up(z_{L - skips})

m_l is the map of layer l, W a 1x1 convolution, up a bilinear resize to the next map's size (to the picture's at the
end). Two skips on maps of strides 32, 16 and 8 are the paper's FCN-8s. As there, the skips' W start at 0.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.nn.encoders.base import Encoder, map_shapes


class FCN(nn.Module):
    """N x 3 x H x W in [0, 1] to N x outputs x H x W.

    Args:
        encoder: trained with the rest.
        outputs: numbers a pixel.
        skips: finer layers than the last that take part; at most all.
        width: channels of the 3x3 convolution.
        size: side of a picture that the encoder takes; nothing else depends on it.
    """

    def __init__(self, encoder: Encoder, outputs: int, skips: int, width: int, size: int) -> None:
        super().__init__()
        self.encoder = encoder
        *finer, last = encoder.layers
        channels = {name: shape[0] for name, shape in map_shapes(encoder, size).items()}
        conv = nn.Conv2d(channels[last], width, 3, padding=1, bias=False)
        self.head = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, outputs, 1))
        self.skips = nn.ModuleDict({name: nn.Conv2d(channels[name], outputs, 1) for name in finer[::-1][:skips]})
        for module in self.skips.values():
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        last = self.encoder.layers[-1]
        maps = self.encoder.maps(x, [last, *self.skips])
        z: Tensor = self.head(maps[last])
        for name, skip in self.skips.items():
            z = resized(z, maps[name]) + skip(maps[name])
        return resized(z, x)


def resized(z: Tensor, like: Tensor) -> Tensor:
    """N x C x h x w to the height and width of `like`, bilinear."""
    return z if z.shape[2:] == like.shape[2:] else F.interpolate(z, like.shape[2:], mode="bilinear")
