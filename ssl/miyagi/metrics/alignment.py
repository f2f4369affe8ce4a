"""How views of one image lie to each other, and to those of other images, on the unit sphere.

Contrastive losses trade two things: positives should fall together, and all features should spread out (Wang and Isola,
ICML 2020). Collapse is perfect alignment without any uniformity.
"""

import numpy as np
from numpy.typing import NDArray

from miyagi.metrics.knn import normalize

LEVELS = (10, 50, 90)
"""Percent: which quantiles of similarities are told."""


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
    """The distributions of cosine similarities, in three quantiles each.

    Args:
        first, second: N x D with N >= 2, of any length: row i of both is of image i.

    Returns:
        pos_q10, pos_q50, pos_q90: of the N pairs of one image; neg_q10, neg_q50, neg_q90: of the N (N - 1) others.
        Where pos_q10 is above neg_q90, nine positives in ten are nearer than nine negatives in ten.
    """
    cosine = normalize(first) @ normalize(second).T
    kinds = {"pos": cosine.diagonal(), "neg": cosine[~np.eye(len(cosine), dtype=bool)]}
    return {
        f"{kind}_q{level}": float(value)
        for kind, values in kinds.items()
        for level, value in zip(LEVELS, np.percentile(values, LEVELS), strict=True)
    }
