"""Signs that an embedding has collapsed to a point or to few directions."""

import math

import numpy as np
from numpy.typing import NDArray

from miyagi.metrics.knn import normalize


def embedding_std(features: NDArray[np.float32]) -> float:
    """Mean over dimensions of the standard deviation of the l2-normalised embedding (Chen and He, CVPR 2021).

    Near 1 / sqrt(D) for an isotropic embedding, 0 for a collapsed one.
    """
    return float(normalize(features).std(0).mean())


WIDTH = 256
"""Dimensions of conv4's embedding: a threshold is told for as many, or fewer."""


def threshold(told: float, dimensions: int) -> float:
    """The standard deviation below which an embedding of D dimensions has collapsed: told sqrt(256 / max(D, 256)).

    That of an isotropic embedding is 1 / sqrt(D): what is a sixth of it at 256 dimensions is nearly half of it at 2048,
    where an encoder in good health may be no better. Narrow embeddings lie in a cone, far below 1 / sqrt(D): for them
    the threshold does not rise.
    """
    return told * math.sqrt(WIDTH / max(dimensions, WIDTH))


def effective_rank(features: NDArray[np.float32]) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007; RankMe, Garrido et al., ICML 2023).

    Between 1 and min(N, D); features are not centred, as in RankMe. 0 where every feature is zero.
    """
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    if values.sum() == 0:
        return 0.0
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))
