"""What cameras and files do: exposure, contrast, saturation, stretching, coarse pixels, JPEG."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.color import mean
from miyagi.data.corruptions.blur import smooth
from miyagi.data.corruptions.draws import Draws

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Quantisation tables at quality 50 (ITU-T T.81, annex K)."""


def brightness(x: Tensor, draws: Draws, amount: float) -> Tensor:
    """HSV's V plus `amount`: hue and saturation stay, so each channel grows in proportion."""
    value = x.amax(1, keepdim=True)
    raised = (value + amount).clamp(0, 1)
    return torch.where(value > 0, x * (raised / torch.where(value > 0, value, 1)), raised)


def contrast(x: Tensor, draws: Draws, share: float) -> Tensor:
    """Towards the mean of each channel."""
    middle = mean(x)
    return (x - middle) * share + middle


def saturate(x: Tensor, draws: Draws, factor: float, shift: float) -> Tensor:
    """HSV's S times `factor` plus `shift`; where there is no colour, hue 0 counts: grey turns towards red."""
    value = x.amax(1, keepdim=True)
    spread = value - x.amin(1, keepdim=True)
    saturation = spread / torch.where(value > 0, value, 1)
    wanted = (saturation * factor + shift).clamp(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=x.device)[:, None, None]
    share = torch.where(spread > 0, (value - x) / torch.where(spread > 0, spread, 1), red)  # 0 to 1, from V down
    return value * (1 - wanted * share)


def pixelate(x: Tensor, draws: Draws, share: float) -> Tensor:
    """Down to `share` of the side, and up again, by box filters."""
    side = x.shape[3]
    small = int(side * share)
    both = _box(small, side, x) @ _box(side, small, x)
    return both @ x @ both.T


def _box(source: int, size: int, x: Tensor) -> Tensor:
    """Weights (size x source) of the pixels whose centres lie in a box as wide as one new pixel, or one old one."""
    scale = source / size
    centre = (torch.arange(size, device=x.device, dtype=torch.float64)[:, None] + 0.5) * scale
    place = (torch.arange(source, device=x.device, dtype=torch.float64) + 0.5 - centre) / max(scale, 1.0)
    inside = ((place > -0.5) & (place <= 0.5)).to(x.dtype)
    return inside / inside.sum(1, keepdim=True)


def elastic(x: Tensor, draws: Draws, alpha: float, sigma: float, affine: float) -> Tensor:
    """A random affine map, then shifts that vary smoothly from pixel to pixel (Simard et al., ICDAR 2003).

    Args:
        x: N x 3 x S x S.
        draws: of the map and the shifts.
        alpha: the shifts' size, sigma: how smooth they are, affine: how far the map moves three points; all as shares
            of the side.
    """
    n, _, side, _ = x.shape
    place = torch.arange(side, device=x.device, dtype=torch.float32)
    points = torch.stack(torch.meshgrid(place, place, indexing="xy"), 2).expand(n, -1, -1, -1)  # (x, y) of each pixel
    if alpha:
        shifts = 2 * draws.uniform("shifts", 2, side, side) - 1
        points = points + alpha * side * smooth(shifts, sigma * side, truncate=3.0).permute(0, 2, 3, 1)
    middle, reach = side // 2, side // 3
    fixed = torch.tensor(
        [[middle + reach, middle + reach], [middle + reach, middle - reach], [middle - reach, middle - reach]],
        device=x.device, dtype=torch.float64,
    ).expand(n, 3, 2)  # fmt: skip
    moved = fixed + affine * side * (2 * draws.uniform("affine", 3, 2).to(torch.float64) - 1)
    ones = torch.ones(n, 3, 1, device=x.device, dtype=torch.float64)
    back = torch.linalg.solve(torch.cat([moved, ones], 2), fixed).to(torch.float32)  # 3 x 2: a moved point's source
    source = points.reshape(n, -1, 2) @ back[:, :2] + back[:, 2:]
    grid = (source * (2 / (side - 1)) - 1).reshape(n, side, side, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def jpeg(x: Tensor, draws: Draws, quality: int) -> Tensor:
    """What baseline JPEG keeps at a quality: 4:2:0 chroma, 8 x 8 blocks, the quantised cosine transform.

    Entropy coding loses nothing, so it is left out.
    """
    side = x.shape[3]
    padding = -side % 16
    red, green, blue = F.pad((x * 255).round(), (0, padding, 0, padding), mode="replicate").unbind(1)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    cb = (blue - y) / 1.772
    cr = (red - y) / 1.402
    y = _coded((y - 128)[:, None].round(), LUMINANCE, quality)
    halves = _coded(F.avg_pool2d(torch.stack([cb, cr], 1).round(), 2).round(), CHROMINANCE, quality)
    chroma = F.interpolate(halves, scale_factor=2, mode="bilinear", align_corners=False)
    y = y[:, 0] + 128
    cb, cr = chroma.unbind(1)
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return rgb[:, :, :side, :side] / 255


def _coded(x: Tensor, table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """N x C x H x W in [-128, 127], through the quantised cosine transform of its 8 x 8 blocks and back."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = ((torch.tensor(table, device=x.device) * percent + 50) // 100).clamp(1, 255).to(x.dtype)
    k = torch.arange(8, device=x.device, dtype=torch.float64)
    cosines = torch.cos((2 * k + 1) * k[:, None] * (math.pi / 16)) * math.sqrt(2 / 8)
    cosines[0] /= math.sqrt(2)
    cosines = cosines.to(x.dtype)
    n, channels, height, width = x.shape
    blocks = x.reshape(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    kept = ((cosines @ blocks @ cosines.T) / steps).round() * steps
    back = (cosines.T @ kept @ cosines).transpose(3, 4).reshape(x.shape)
    return back.round().clamp(-128, 127)
