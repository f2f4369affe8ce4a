"""Weighted k-nearest-neighbour classification of frozen features (Wu et al., CVPR 2018, section 3.4).

    class of q = argmax over c of sum over the k nearest i with label c of exp(cos(q, f_i) / T)

The online monitor of training and the `knn` protocol call this same function.
"""

import numpy as np
from numpy.typing import NDArray

CHUNK = 2000
"""Queries whose similarities are held at once: memory is CHUNK x M floats, whatever the number of queries."""


def normalize(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at unit length; a row of zeros stays zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, np.where(length > 0, length, 1), dtype=np.float32)


def knn(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    queries: NDArray[np.float32],
    k: int = 200,
    temperature: float = 0.1,
) -> NDArray[np.int64]:
    """The predicted label of each query; ties go to the smaller label.

    Args:
        train: M x D, any length; cosine similarity is used.
        labels: M, in [0, C).
        queries: N x D.
        k: neighbours, at most M.
        temperature: T > 0.

    Raises:
        ValueError: k is larger than M.
    """
    if not 1 <= k <= len(train):
        raise ValueError(f"k = {k} neighbours of {len(train)} features")
    classes = int(labels.max()) + 1
    bank = normalize(train).T
    predicted = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), CHUNK):
        similarity = normalize(queries[start : start + CHUNK]) @ bank
        nearest = np.argpartition(similarity, -k, axis=1)[:, -k:] if k < len(train) else np.argsort(similarity, axis=1)
        # Against the nearest one, so that no exponential overflows at a small temperature.
        close = np.take_along_axis(similarity, nearest, 1).astype(np.float64)
        weight = np.exp((close - close.max(1, keepdims=True)) / temperature)
        votes = np.zeros((len(similarity), classes))
        np.add.at(votes, (np.arange(len(votes))[:, None], labels[nearest]), weight)
        predicted[start : start + CHUNK] = votes.argmax(1)
    return predicted
