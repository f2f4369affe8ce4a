"""Exemplar networks (Dosovitskiy et al., NeurIPS 2014): transformed copies of an image are a class of their own.

    softmax:  L = -log( exp(w_i.v + b_i) / sum over the n images j of exp(w_j.v + b_j) ),  v = g(f(T(x_i))),
    triplet:  L = mean over copies of other images of max(0, m + |v - v+|^2 - |v - v-|^2),  v+ another copy of x_i.

The class weights are n x D (and n biases): a parameter for each image, as many as the encoder has at a few thousand
images; beyond that, triplets ask for none (Doersch and Zisserman, ICCV 2017; Kolesnikov et al., CVPR 2019).
Paper: 8,000 to 32,000 patches of 32 pixels, about 100 copies each in all, copies moved, scaled (0.7 to 1.4), rotated
(20 degrees) and changed in contrast and colour. Kolesnikov et al.: 8 copies of each image a step, vectors at unit
length; their semi-hard choice of one negative is replaced by the mean over all copies of the batch's other images.
On vectors of unit length a margin of 0.5 in cosine distance (Doersch and Zisserman) is 1 in squared distance.

All copies go through the encoder in one forward pass.
Loader: `copies` views of one recipe; 2 or more for triplets.
"""

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.margin import triplet
from miyagi.losses.pairs import squared_distances
from miyagi.losses.softmax import parametric_softmax
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.negatives import InBatch
from miyagi.settings import Head, MethodSettings


class Settings(MethodSettings):
    """Settings of exemplar networks."""

    recipe: str = "exemplar"
    loss: Literal["softmax", "triplet"] = Field("softmax", description="triplet: no weights that grow with the data")
    copies: int = Field(2, ge=1, le=16, description="of each image in a step")
    margin: float = Field(1.0, gt=0, description="m of triplet")
    form: Literal["squared", "distance"] = Field("squared", description="triplet: of d^2, or of d")
    number: int | None = Field(None, ge=1, description="triplet: negatives of a copy, drawn anew; null: all")
    l2_normalize: bool = Field(True, description="triplet: vectors at unit length")
    head: Head = Head(kind="linear", out=128)

    @model_validator(mode="after")
    def _possible(self) -> "Settings":
        if self.loss == "triplet" and self.copies < 2:
            raise ValueError("triplet compares copies of an image: copies must be 2 or more")
        return self


class Exemplar(Method[Settings]):
    """n classes, or none."""

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.views = tuple(View(f"copy{i}") for i in range(settings.copies))
        self.head = heads.build(settings.head, self.encoder.dim)
        out = heads.out_width(settings.head, self.encoder.dim)
        self.negatives = InBatch(settings.number)
        if settings.loss == "softmax":
            bound = 1 / math.sqrt(out)  # as torch's own linear layer
            self.weight = nn.Parameter(torch.empty(info.n, out).uniform_(-bound, bound))
            self.bias = nn.Parameter(torch.zeros(info.n))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        vectors = self.head(self.encoder(batch.joined())).float()
        return self.softmax(batch, vectors) if self.settings.loss == "softmax" else self.triplet(batch, vectors)

    def softmax(self, batch: Batch, vectors: Tensor) -> dict[str, Tensor]:
        """Which of the n images is it? `vectors` copy by copy, (copies N) x D."""
        label = batch.index.repeat(self.settings.copies)
        loss = parametric_softmax(vectors, self.weight, label, self.bias)
        with torch.no_grad():
            right = F.linear(vectors, self.weight.float(), self.bias.float()).argmax(1) == label
        return {"loss": loss, "accuracy": right.float().mean()}

    def triplet(self, batch: Batch, vectors: Tensor) -> dict[str, Tensor]:
        """Is the image's next copy nearer than the copies of others?"""
        if self.settings.l2_normalize:
            vectors = F.normalize(vectors, dim=1)
        candidates, keep = self.negatives(batch.key, batch.index, vectors)
        positive = vectors.roll(-len(batch), 0)
        loss = triplet(vectors, positive, candidates, self.settings.margin, form=self.settings.form, keep=keep)
        with torch.no_grad():
            near, far = squared_distances(vectors, positive, candidates)
            right = near < far.masked_fill(~keep, float("inf")).amin(1)
        return {"loss": loss, "accuracy": right.float().mean()}
