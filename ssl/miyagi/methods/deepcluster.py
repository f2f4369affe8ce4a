"""DeepCluster (Caron et al., ECCV 2018): k-means on the features gives labels, the labels train the features.

Before an epoch, with the features f of the images x as they are, reduced by PCA, whitened and of length 1,

    min over C (d x k) and y of sum over i of |f(x_i) - C y_i|^2,   y_i one of k unit vectors,

and during it a new linear classifier W is trained with the encoder to tell the y from transformed images T(x), each
cluster weighing alike:

    L = mean over i of w(y_i) (-log softmax(W f(T(x_i))))[y_i],   w(y) = n / (clusters not empty x |cluster y|).

That x is not T(x) matters: labels of the very views that are trained on say nothing that the encoder does not know
(docs/methods.md has what came of them).

Without that weight, one cluster for all images is a solution; it is what drawing images uniformly over the labels gives
on average, as the paper does. k is the problem's complexity: too many are better than too few; the default is 10 for
each of 10 kinds of images, as the paper's 10,000 are for ImageNet. Chance is 1 / k.
Paper: features of AlexNet or VGG-16 on Sobel-filtered images, crop and flip, PCA to 256, 20 iterations, SGD with
learning rate 0.05, batch 256, dropout, 500 epochs, new clusters before each. Here colour jitter and greyness in T stand
against clusters of colours in place of the Sobel filter, which would take the colours from what downstream sees, too
(`recipe: cmc` is crop and flip only). The classifier's running means in the optimiser outlive it for a few steps.
The paper's learning rate is constant (here: `pretrain.min_lr` as `lr`). At the end of a cosine the new classifier
learns nothing in its only epoch, and the loss rises to log k. A few thousand images are few steps for a new classifier:
`reassign` gives it several epochs, as the authors' code may (`--reassign`).

What a step needs is in buffers: the labels, image by image, and the clusters' weights. An image without a label (the
clusters' epoch had dropped it) has no loss. With several processes the features are gathered, and each finds the same
clusters. An encoder's pass without gradient and k-means are the price of the clusters. Loader: one view, and for the
clusters the images as they are.
"""

from collections.abc import Iterable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.rng import fold
from miyagi.methods.base import Method
from miyagi.nn.clusters import in_order, kmeans, nearest, whiten
from miyagi.settings import MethodSettings

NONE = -1
"""The label of an image that has none."""


class Settings(MethodSettings):
    """Settings of DeepCluster."""

    recipe: str = "simclr_small"
    clusters: int = Field(100, ge=2, le=100000, description="k; at most as many as images")
    pca: int = Field(256, ge=1, description="dimensions that are clustered, at most")
    iterations: int = Field(20, ge=1, le=1000, description="of k-means, at most")
    reassign: int = Field(1, ge=1, description="epochs that clusters and their classifier last")


class DeepCluster(Method[Settings]):
    """Which cluster of its own features?"""

    views = (View("image"),)
    views_before = (View("clustered", recipe=None),)
    labels: Tensor
    weight: Tensor

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.head = nn.Sequential(nn.Linear(self.encoder.dim, settings.clusters))
        self.register_buffer("labels", torch.full((info.n,), NONE))
        self.register_buffer("weight", torch.ones(settings.clusters))

    @torch.no_grad()
    def before_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        if epoch % self.settings.reassign:
            return
        training = self.encoder.training
        self.encoder.eval()
        found = [(batch.index, self.encoder(batch.views[0]), batch.key) for batch in batches]
        self.encoder.train(training)
        features = torch.cat([each for _, each, _ in found])
        index, vectors = in_order(torch.cat([each for each, _, _ in found]), features)
        self.assign(index, vectors, fold(*found[0][2], "deepcluster/kmeans"))
        weight, bias = self.head.parameters()
        nn.init.normal_(weight, std=0.01)
        nn.init.zeros_(bias)

    def assign(self, index: Tensor, features: np.ndarray, seed: int) -> None:
        """Take the clusters of the features (N x D) as the labels of the images `index` (N, int64)."""
        k = self.settings.clusters
        vectors = whiten(features, self.settings.pca)
        centroids = kmeans(vectors, k, seed, "deepcluster: clusters", iterations=self.settings.iterations)
        labels = nearest(torch.from_numpy(vectors), torch.from_numpy(centroids))
        sizes = labels.bincount(minlength=k)
        self.labels.fill_(NONE)
        self.labels[index] = labels.to(self.labels.device)
        # An empty cluster's weight is never used.
        self.weight.copy_(len(labels) / (int((sizes > 0).sum()) * sizes.clamp(min=1)))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        target = self.labels[batch.index]
        logits = self.head(self.encoder(batch.views[0])).float()
        with torch.no_grad():
            accuracy = (logits.argmax(1) == target).float().mean()
        loss = (self.weight[target] * F.cross_entropy(logits, target, reduction="none", ignore_index=NONE)).mean()
        return {"loss": loss, "accuracy": accuracy}

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Each image beside the one of the batch whose answer is the most like its own."""
        images = batch.views[0]
        answer = F.normalize(self.head(self.encoder(images)).float().softmax(1), dim=1)
        alike = (answer @ answer.T).fill_diagonal_(-1).argmax(1)
        return {"image": images, "the most alike by answer": images[alike]}
