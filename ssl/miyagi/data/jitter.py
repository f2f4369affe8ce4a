"""Colour jitter: brightness, contrast, saturation and hue, by each sample's own factors and in its own order."""

import torch
from torch import Tensor

from miyagi.data.color import luma, total
from miyagi.settings import Jitter

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def active(settings: Jitter) -> list[int]:
    """Which of brightness (0), contrast (1), saturation (2) and hue (3) change anything."""
    strengths = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    return [kind for kind, strength in enumerate(strengths) if strength]


def factors(settings: Jitter, draws: Tensor) -> Tensor:
    """Factors of brightness, contrast and saturation and the hue's shift, N x 4, from N x 4 draws in [0, 1)."""
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    low = [*(max(0.0, 1 - strength) for strength in strengths), -settings.hue]
    high = [*(1 + strength for strength in strengths), settings.hue]
    bottom, top = torch.tensor([low, high], device=draws.device).unbind()
    return bottom + (top - bottom) * draws


def passes_before_hue(kinds: list[int], turn: Tensor, chosen: Tensor) -> Tensor:
    """How many other operations come before a sample's hue (N, int64); one more than there are: it is not jittered.

    Args:
        kinds: the operations that are active.
        turn: N x 4: the operation with the smallest number is done first.
        chosen: N, bool: the samples that are jittered at all.
    """
    others = [kind for kind in kinds if kind != HUE]
    return torch.where(chosen, (turn[:, others] < turn[:, HUE:]).sum(1), len(others) + 1)


def jitter_(x: Tensor, kinds: list[int], factor: Tensor, turn: Tensor, before: Tensor) -> Tensor:
    """Colour jitter in place, the operations in each sample's own order; each clips to [0, 1].

    All but the hue have one form, a x + b luma + c sum(luma) with three numbers for each sample, so one pass does
    whichever of them is each sample's next. Samples come sorted by the number of passes before their hue: those that
    still need one before it, and those that need one after it, are then slices, and the hue is turned once for all.

    Args:
        x: N x 3 x H x W in [0, 1].
        kinds: the operations that are active.
        factor: N x 4: of brightness, contrast and saturation, and the hue's shift as a share of the colour circle.
        turn: N x 4: the operation with the smallest number is done first.
        before: N, int64, ascending: what `passes_before_hue` says.
    """
    others = [kind for kind in kinds if kind != HUE]
    # ends[k]: how many samples have at most k passes before the hue.
    ends = (before[:, None] <= torch.arange(len(others) + 1, device=x.device)).sum(0).tolist()
    jittered = ends[-1]
    passes = _coefficients(others, factor[:jittered], turn[:jittered], x.shape[2] * x.shape[3])
    for end, (a, b, c) in zip(ends, passes, strict=False):
        _pass(x[end:jittered], a[end:], b[end:], c[end:])
    if HUE in kinds:
        shift_hue_(x[:jittered], factor[:jittered, HUE])
    for end, (a, b, c) in zip(ends, passes, strict=False):
        _pass(x[:end], a[:end], b[:end], c[:end])
    return x


def _coefficients(kinds: list[int], factor: Tensor, turn: Tensor, pixels: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """a, b and c (each N x 1 x 1 x 1) of the first pass, the second and so on.

    Brightness blends with black, saturation with the pixel's luma, contrast with the mean luma.
    """
    own = factor[:, kinds].gather(1, order := turn[:, kinds].argsort(dim=1, stable=True))
    of_luma = torch.tensor([float(kind == SATURATION) for kind in kinds], device=factor.device)[order]
    of_sum = torch.tensor([(kind == CONTRAST) / pixels for kind in kinds], device=factor.device)[order]
    columns = [values[:, :, None, None, None].unbind(1) for values in (own, of_luma * (1 - own), of_sum * (1 - own))]
    return list(zip(*columns, strict=True))


def _pass(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """x <- clamp(a x + b luma + c sum(luma), 0, 1), in place."""
    if len(x):
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
