"""Colour jitter: brightness, contrast, saturation and hue, by each sample's own factors and in its own order."""

import torch
from torch import Tensor

from miyagi.data.color import luma, total
from miyagi.settings import Jitter

BRIGHTNESS, CONTRAST, SATURATION = range(3)
HUE = 3
Factor = Tensor | None
"""One number a sample, or None for an operation that is left out."""


def factors(settings: Jitter, draws: Tensor) -> tuple[Factor, Factor, Factor, Factor]:
    """Brightness, contrast and saturation factors and the hue's shift, each N, from N x 4 draws in [0, 1)."""
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    low = [max(0.0, 1 - strength) for strength in strengths]
    drawn = draws.unbind(1)
    brightness, contrast, saturation = (
        low[kind] + (1 + strength - low[kind]) * drawn[kind] if strength else None
        for kind, strength in enumerate(strengths)
    )
    return brightness, contrast, saturation, (2 * drawn[HUE] - 1) * settings.hue if settings.hue else None


def passes_before_hue(settings: Jitter, turn: Tensor, chosen: Tensor) -> Tensor:
    """How many other operations come before a sample's hue (N, int64); one more than there are: it is not jittered.

    Args:
        settings: whose strengths of 0 mean that an operation is left out.
        turn, chosen: as for `jitter_`, which is fastest when samples are sorted by this.
    """
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    return _before(turn, chosen, [kind for kind, strength in enumerate(strengths) if strength])


def _before(turn: Tensor, chosen: Tensor, active: list[int]) -> Tensor:
    return torch.where(chosen, (turn[:, active] < turn[:, HUE:]).sum(1), len(active) + 1)


def jitter_(
    x: Tensor, brightness: Factor, contrast: Factor, saturation: Factor, hue: Factor, turn: Tensor, chosen: Tensor
) -> Tensor:
    """Colour jitter in place; each operation clips to [0, 1], and None leaves one out.

    All but the hue have one form, a x + b luma + c sum(luma) with three numbers for each sample, so one pass does
    whichever of them is each sample's next. Samples are lined up by the number of passes before their hue: those that
    still need one before it, and those that need one after it, are then slices, and the hue is turned once for all.

    Args:
        x: N x 3 x H x W in [0, 1].
        brightness, contrast, saturation: factors, each N.
        hue: shift as a share of the colour circle, N.
        turn: N x 4: the operation (in the arguments' order) with the smallest number is done first.
        chosen: N, bool: the samples that are jittered at all.
    """
    found = {kind: factor for kind, factor in enumerate((brightness, contrast, saturation)) if factor is not None}
    active = list(found)
    before = _before(turn, chosen, active)
    # ends[k]: how many samples have at most k passes before the hue.
    ends = (before[:, None] <= torch.arange(len(active) + 1, device=x.device)).sum(0).tolist()
    lined_up = bool((before[1:] >= before[:-1]).all())
    rows = before.argsort(stable=True)[: ends[-1]]
    part = x[: len(rows)] if lined_up else x.index_select(0, rows)

    passes: tuple[Tensor, ...] = ()
    if active:
        pixels = x.shape[2] * x.shape[3]
        table = torch.stack([_coefficients(kind, factor, pixels) for kind, factor in found.items()], 1)
        order = turn[:, active].argsort(dim=1, stable=True)
        passes = table.gather(1, order[:, :, None].expand(-1, -1, 3))[rows].unbind(1)
    for end, coefficients in zip(ends, passes, strict=False):
        _pass(part[end:], coefficients[end:])
    if hue is not None:
        shift_hue_(part, hue[rows])
    for end, coefficients in zip(ends, passes, strict=False):
        _pass(part[:end], coefficients[:end])
    return x if lined_up else x.index_copy_(0, rows, part)


def _coefficients(kind: int, factor: Tensor, pixels: int) -> Tensor:
    """a, b and c of one operation, N x 3: it blends with black, with the mean luma, or with the pixel's luma."""
    rest, none = 1 - factor, torch.zeros_like(factor)
    return torch.stack([factor, rest if kind == SATURATION else none, rest / pixels if kind == CONTRAST else none], 1)


def _pass(x: Tensor, coefficients: Tensor) -> None:
    """x <- clamp(a x + b luma + c sum(luma), 0, 1), in place; coefficients: N x 3."""
    if len(x):
        a, b, c = coefficients[:, :, None, None, None].unbind(1)
        shade = luma(x)
        offset = total(shade).mul_(c)
        torch.addcmul(shade.mul_(b).add_(offset), x, a, out=x).clamp_(0, 1)


def shift_hue_(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of each sample, in place, by `shift` (N, a share of the colour circle), as by way of HSV.

    On the hexagon of hues, in units of a sixth of the circle, a colour with maximum V, minimum m and C = V - m lies
    1 + (G + B - R - m) / C away from red, on the side of the larger of G and B. The other way, red is
    V - C w(3) and green and blue are m + C w(2) and m + C w(4) with w(p) = min(1, max(0, 2 - |hue - p|)).
    """
    red, green, blue = x.split(1, 1)
    high = torch.maximum(red, green)
    torch.maximum(high, blue, out=high)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    spread = high - low
    side = (green - blue).add_(1e-20).sign_()  # never 0
    hue = (green + blue).sub_(red).sub_(low).div_(spread.clamp(min=1e-20)).add_(1).mul_(side)
    hue.add_((6 * shift)[:, None, None, None])
    hue.sub_((hue / 6).floor_(), alpha=6)
    position = torch.tensor([3.0, 2.0, 4.0], device=x.device)[:, None, None]
    wave = torch.sub(hue, position, out=x).abs_().neg_().add_(2).clamp_(0, 1)
    torch.addcmul(high, red, spread, value=-1, out=red)
    torch.addcmul(low, wave[:, 1:], spread, out=wave[:, 1:])
    return x
