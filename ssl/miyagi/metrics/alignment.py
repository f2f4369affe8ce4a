"""How views of one image lie to each other, and to those of other images, on the unit sphere.

Contrastive losses trade two things: positives should fall together, and all features should spread out (Wang and Isola,
ICML 2020). Collapse is perfect alignment without any uniformity.
"""

import numpy as np
from numpy.typing import NDArray

from miyagi.metrics.knn import normalize

LEVELS = (5, 25, 50, 75, 95)
"""Percent: the quantiles that stand for a histogram of similarities; the report draws them as bands over epochs."""


def alignment(first: NDArray[np.float32], second: NDArray[np.float32], alpha: float = 2.0) -> float:
    """E |f(x) - f(y)|^alpha over positive pairs (Wang and Isola 2020, equation 2); 0 is perfect.

    Args:
        first, second: N x D, of any length: row i of both is of image i.
        alpha: the power (paper: 2).
    """
    distance = np.linalg.norm(normalize(first).astype(np.float64) - normalize(second), axis=1)
    return float((distance**alpha).mean())


def uniformity(features: NDArray[np.float32], t: float = 2.0) -> float:
    """log E exp(-t |f(x) - f(y)|^2) over pairs of different images (Wang and Isola 2020, equation 3).

    0 where all features are one point; near -2 t for an isotropic embedding of many dimensions.

    Args:
        features: N x D with N >= 2, of any length.
        t: inverse width of the kernel (paper: 2).
    """
    unit = normalize(features).astype(np.float64)
    square = (unit**2).sum(1)
    distance = square[:, None] + square - 2 * unit @ unit.T
    return float(np.log(np.exp(-t * distance[np.triu_indices(len(unit), 1)]).mean()))


def similarity_quantiles(first: NDArray[np.float32], second: NDArray[np.float32]) -> dict[str, float]:
    """The distributions of cosine similarities, in the quantiles `LEVELS`.

    Args:
        first, second: N x D with N >= 2, of any length: row i of both is of image i.

    Returns:
        pos_q05, pos_q25, ... pos_q95: of the N pairs of one image; neg_q05 and so on: of the N (N - 1) others. Where
        pos_q05 is above neg_q95, 19 positives in 20 are nearer than 19 negatives in 20.
    """
    cosine = normalize(first) @ normalize(second).T
    kinds = {"pos": cosine.diagonal(), "neg": cosine[~np.eye(len(cosine), dtype=bool)]}
    return {
        f"{kind}_q{level:02}": float(value)
        for kind, values in kinds.items()
        for level, value in zip(LEVELS, np.percentile(values, LEVELS), strict=True)
    }
