"""CIFAR-10-C's 19 corruptions at 5 severities, as batched tensor operations (Hendrycks and Dietterich, ICLR 2019).

The 15 of the benchmark and its 4 extra ones, with the constants of CIFAR-10-C. Those are for images of 32 pixels: every
length (of a blur, a shift, a grain) grows with the side of the image. Three depart from the original, which needs files
or programs that are not here: `frost` lays a computed texture over the image instead of photographs of ice, `spatter`'s
water is not shaded by an edge detector, and `motion_blur` follows ImageMagick's formula without ImageMagick.

A corruption is a function of an image, its index and the severity: it depends on no batch and no other draw.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from miyagi.data.corruptions import blur, digital, noise, weather
from miyagi.data.corruptions.draws import Draws
from miyagi.data.rng import Key

SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Callable[..., Tensor]
"""x (N x 3 x S x S in [0, 1]), draws and the severity's constants to N x 3 x S x S, not yet clipped."""

TABLE: dict[str, tuple[Corruption, tuple[Any, ...]]] = {
    "gaussian_noise": (noise.gaussian, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (noise.shot, (500, 250, 100, 75, 50)),
    "impulse_noise": (noise.impulse, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (blur.defocus, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))),
    "glass_blur": (blur.glass, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (blur.motion, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "zoom_blur": (blur.zoom, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (
        weather.snow,
        (
            (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
            (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
        ),
    ),
    "frost": (weather.frost, ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (weather.fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
    "brightness": (digital.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (digital.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        digital.elastic,
        ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (digital.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (digital.jpeg, (80, 65, 58, 50, 40)),
    "speckle_noise": (noise.speckle, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": (blur.gaussian, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "spatter": (
        weather.spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1.0, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
    ),
    "saturate": (digital.saturate, ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))),
}
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
COMMON = tuple(name for name in TABLE if name not in EXTRA)
"""The 15 over which the mean corruption error is taken."""


def corrupt(name: str, severity: int, x: Tensor, index: Tensor) -> Tensor:
    """A batch, corrupted, and rounded to 8 bits as the benchmark stores it.

    Args:
        name: a key of `TABLE`.
        severity: 1 to 5.
        x: N x 3 x S x S in [0, 1].
        index: N int64, the samples' positions in their split: the names of their draws.

    Returns:
        N x 3 x S x S in [0, 1], multiples of 1/255.
    """
    operation, constants = TABLE[name]
    chosen = constants[severity - 1]
    draws = Draws(Key(0, severity), f"corruptions/{name}", index)
    out = operation(x.contiguous(), draws, *(chosen if isinstance(chosen, tuple) else (chosen,)))
    return (out.clamp(0, 1) * 255).round() / 255
