"""CIE L*a*b* and back, on batches: sRGB primaries and transfer curve (IEC 61966-2-1), white point D65 (2 degrees).

L is lightness (0 to 100); a (green to red) and b (blue to yellow) are 0 for greys and stay within about -110 to 110
for colours that sRGB can show. Equal distances are roughly equal to the eye, which is what colourisation (Zhang et al.,
ECCV 2016) and CMC (Tian et al., ECCV 2020) take it for.
"""

import torch
from torch import Tensor

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear sRGB to XYZ, ITU-R BT.709 primaries."""
WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of D65 seen by the 2-degree observer."""
DELTA = 6 / 29
"""Where CIE's cube root turns into a line, in units of the root."""


def rgb_to_lab(x: Tensor) -> Tensor:
    """N x 3 x H x W sRGB in [0, 1] -> N x 3 x H x W: L in [0, 100], a and b about -110 to 110."""
    linear = torch.where(x > 0.04045, _power((x + 0.055) / 1.055, 2.4), x / 12.92)
    xyz = _mix(linear, _scaled())
    root = torch.where(xyz > DELTA**3, _power(xyz, 1 / 3), xyz / (3 * DELTA**2) + 4 / 29)
    fx, fy, fz = root.unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], 1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """N x 3 x H x W L*a*b* -> sRGB in [0, 1]; colours that sRGB cannot show are clipped channel by channel."""
    light, a, b = lab.unbind(1)
    fy = (light + 16) / 116
    root = torch.stack([fy + a / 500, fy, fy - b / 200], 1)
    xyz = torch.where(root > DELTA, root**3, 3 * DELTA**2 * (root - 4 / 29))
    linear = _mix(xyz, torch.linalg.inv(_scaled())).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * _power(linear, 1 / 2.4) - 0.055, 12.92 * linear)


def _power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent. torch's own `pow` gives an element other last bits in the tail of a tensor; exp and log do not."""
    return (x.clamp(min=1e-6).log() * exponent).exp()


def _scaled() -> Tensor:
    """RGB -> XYZ as a share of white's, in float64: the inverse is taken of it."""
    return torch.tensor(RGB_TO_XYZ, dtype=torch.float64) / torch.tensor(WHITE, dtype=torch.float64)[:, None]


def _mix(x: Tensor, matrix: Tensor) -> Tensor:
    """Each output channel as a weighted sum of the input's: exact to the same bits in any batch, unlike a product."""
    red, green, blue = x.unbind(1)
    return torch.stack([r * red + g * green + b * blue for r, g, b in matrix.tolist()], 1)
