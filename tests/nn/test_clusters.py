import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from miyagi.errors import UserError
from miyagi.nn.clusters import in_order, kmeans, nearest, whiten


def blobs(n=60, k=3, width=5):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(k, width))[np.arange(n) % k] * 20 + rng.normal(size=(n, width))).astype(np.float32)


@pytest.mark.parametrize("dimensions", [2, 5, 100])
def test_whitening_is_scikit_learns(dimensions):
    x = blobs() @ np.diag([1, 3, 0.1, 5, 2]).astype(np.float32)
    theirs = normalize(PCA(min(dimensions, 5), whiten=True, svd_solver="full").fit_transform(x.astype(np.float64)))
    ours = whiten(x, dimensions)
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-6)


def test_components_of_noise_are_left_out():
    x = blobs()
    twice = np.concatenate([x, x, np.zeros_like(x)], axis=1)
    assert whiten(twice, 100).shape == (60, 5)
    assert np.isfinite(whiten(np.ones((4, 3), np.float32), 2)).all()


def test_clusters_are_scikit_learns():
    x = blobs()
    theirs = KMeans(3, n_init=1, max_iter=20, random_state=7).fit(x)
    centroids = kmeans(x, 3, 7, "x")
    np.testing.assert_allclose(centroids, theirs.cluster_centers_, rtol=1e-6)
    labels = nearest(torch.from_numpy(x), torch.from_numpy(centroids))
    assert labels.tolist() == theirs.labels_.tolist()
    assert np.array_equal(kmeans(x, 3, 7, "x"), centroids)


def test_mini_batches_find_the_same_blobs():
    x = blobs(600)
    labels = nearest(torch.from_numpy(x), torch.from_numpy(kmeans(x, 3, 1, "x", batches=True)))
    assert len({(int(label), i % 3) for i, label in enumerate(labels)}) == 3


def test_fewer_vectors_than_clusters():
    with pytest.raises(
        UserError, match="^deepcluster: clusters: 61 clusters need as many vectors, and there are only 60"
    ):
        kmeans(blobs(), 61, 0, "deepcluster: clusters")
    assert kmeans(np.ones((4, 2), np.float32), 3, 0, "x").shape == (3, 2)  # less than k different ones: no warning


def test_the_order_is_that_of_the_images():
    index, x = in_order(torch.tensor([4, 0, 2]), torch.tensor([[4.0], [0.0], [2.0]]))
    assert index.tolist() == [0, 2, 4] and x.tolist() == [[0], [2], [4]]


def test_nearest_by_hand():
    centroids = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert nearest(torch.tensor([[[1.0, 1.0], [2.0, 3.0]]]), centroids).tolist() == [[0, 1]]
