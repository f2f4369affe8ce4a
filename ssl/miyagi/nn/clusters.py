"""k-means for methods that learn from clusters of their own features: pseudo-labels, visual words.

scikit-learn does it, in one thread: with three or more, threads add their sums up in the order in which they get there.
The vectors come sorted by what they belong to, from all processes, so each process finds the same clusters by itself.
"""

import warnings

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from miyagi.errors import UserError, did_you_mean
from miyagi.nn.encoders.base import Encoder
from miyagi.nn.gather import gather_detached


def in_order(index: Tensor, x: Tensor) -> tuple[Tensor, np.ndarray]:
    """What all processes hold of x (N x ...), sorted by `index` (N, int64); the sorted index, and x as float32."""
    index, x = gather_detached(index), gather_detached(x.float())
    order = index.argsort(stable=True)
    return index[order], x[order].cpu().numpy()


def whiten(x: np.ndarray, dimensions: int) -> np.ndarray:
    """N x D to unit vectors (float64) of decorrelated components of variance 1: PCA, at most `dimensions` of them.

    Components whose variance is below a millionth of the largest are noise, and left out.
    """
    with threadpool_limits(1):
        x = x.astype(np.float64) - x.mean(0, dtype=np.float64)
        values, vectors = np.linalg.eigh(x.T @ x / max(len(x) - 1, 1))
        values, vectors = values[::-1], vectors[:, ::-1]
        keep = max(1, min(dimensions, int((values > 1e-6 * values[0]).sum())))
        x = x @ (vectors[:, :keep] / np.sqrt(np.maximum(values[:keep], 1e-12)))
    unit: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return unit


def kmeans(x: np.ndarray, k: int, seed: int, key: str, *, iterations: int = 20, batches: bool = False) -> np.ndarray:
    """k centroids (k x D) of the vectors x (N x D), from k-means++.

    Args:
        x: the vectors.
        k: clusters. An empty one is moved to a vector that lies far from its centroid; it stays empty only where there
            are less than k different vectors.
        seed: of the first centroids.
        key: the setting that says k, for the error.
        iterations: passes over the data at most.
        batches: mini-batch k-means (Sculley, WWW 2010), for many vectors and clusters.

    Raises:
        UserError: there are less than k vectors.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(x) < k:
        raise UserError(f"{key}: {k} clusters need as many vectors, and there are only {len(x)}; lower it")
    common = {"n_clusters": k, "n_init": 1, "max_iter": iterations, "random_state": seed % 2**32}
    found = MiniBatchKMeans(**common, batch_size=max(1024, 4 * k)) if batches else KMeans(**common)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # less than k different vectors
        centroids: np.ndarray = found.fit(x).cluster_centers_
    return centroids


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Which of k centroids (k x D) is nearest to each vector (... x D), in Euclid's distance."""
    with torch.autocast(x.device.type, enabled=False):  # a difference of large numbers
        return (centroids.square().sum(1) - 2 * x @ centroids.T).argmin(-1)


@torch.no_grad()
def layer_of_words(encoder: Encoder, size: int, layer: str | None, key: str) -> tuple[str, int]:
    """The layer whose places are words, and its channels; without a name, the last one with 16 places or more."""
    training = encoder.training
    encoder.eval()  # BatchNorm's statistics stay as they are
    maps: dict[str, Tensor] = encoder.maps(encoder.mean.new_zeros(1, 3, size, size))
    encoder.train(training)
    if layer is not None and layer not in maps:
        raise UserError(f"{key}: there is no '{layer}'; {did_you_mean(layer, maps)}")
    large = [name for name, each in maps.items() if each.shape[2] * each.shape[3] >= 16]
    name = layer or (large or encoder.layers[:1])[-1]
    return name, maps[name].shape[1]
