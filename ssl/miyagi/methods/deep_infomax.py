"""Deep InfoMax, DIM (Hjelm et al., ICLR 2019): an image's vector should tell what its map shows, place by place.

    loss = alpha G(M; y) + beta mean over places p of L(M_p; y),   y = f(x), M: an earlier map of the same pass,

G and L minus a bound or an estimate of mutual information (losses/mutual_information.py) between what belongs to one
image, against what belongs to different images of the batch, with scores that are dot products,

    T(M_p, y) = phi(M_p) . psi(y) / tau  (phi: two 1x1 convolutions),  T(M, y) = phi'(M) . psi(y) / tau,

so that every image is contrasted with every other at the cost of a matrix product. psi is the head.
Estimators: info_nce, where each place of the image competes with all places of the other images; jsd, which needs few
negatives; dv, which needs many.
Paper: DIM(L) is alpha 0 and beta 1 (the default, and the better one for classification), DIM(G) is alpha 1 and beta 0;
batch 64, Adam with learning rate 1e-4, an 8 x 8 map of 32 x 32 images. The prior term, which matches y to a uniform
distribution by an adversary (gamma 0.1), is left out: it needs an optimiser of its own and changes classification by
little. So are the convolutions' skip connections and the discriminator that takes M and y together.

The map is the last one with 4 x 4 places or more: of conv4 at 32 pixels the third of four.
Loader: one view.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.errors import UserError, did_you_mean
from miyagi.losses.mutual_information import dv, jsd, mutual_information_bound
from miyagi.losses.pairs import in_fp32
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.encoders.base import Encoder, pool_to
from miyagi.nn.gather import gather
from miyagi.nn.negatives import InBatch
from miyagi.settings import Head, MethodSettings, Name

ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"jsd": jsd, "dv": partial(dv, gather=gather)}


class Settings(MethodSettings):
    """Settings of Deep InfoMax."""

    estimator: Literal["info_nce", "jsd", "dv"] = "info_nce"
    number: int | None = Field(None, ge=1, description="other images that one is contrasted with; null: the batch's")
    alpha: float = Field(0.0, ge=0, description="weight of the global term")
    beta: float = Field(1.0, ge=0, description="weight of the local term")
    temperature: float = Field(1.0, gt=0, description="tau, of scores that are not normalised")
    layer: Name | None = Field(None, description="the map's; null: the last with 4 x 4 places or more")
    width: int = Field(256, ge=1, description="hidden units of what scores the map")
    head: Head = Head()

    @model_validator(mode="after")
    def _possible(self) -> "Settings":
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0: nothing is left to learn")
        return self


class DeepInfoMax(Method[Settings]):
    """A vector against the places of maps."""

    views = (View("image"),)

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.layer, channels, side = chosen(self.encoder, settings.layer, info.size)
        self.head = heads.build(settings.head, self.encoder.dim)
        out = heads.out_width(settings.head, self.encoder.dim)
        self.negatives = InBatch(settings.number)
        if settings.beta:
            self.local = nn.Sequential(
                nn.Conv2d(channels, settings.width, 1), nn.ReLU(), nn.Conv2d(settings.width, out, 1)
            )
        if settings.alpha:
            self.grid = min(side, 4)
            self.whole = nn.Sequential(
                nn.Linear(channels * self.grid**2, settings.width), nn.ReLU(), nn.Linear(settings.width, out)
            )

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        last = self.encoder.layers[-1]
        maps = self.encoder.maps(batch.views[0], [self.layer, last])
        query, seen = self.head(self.encoder.pool(maps[last])), maps[self.layer]
        terms = []
        if self.settings.beta:
            terms.append((self.settings.beta, self.term(batch, query, self.local(seen).flatten(2).mT)))
        if self.settings.alpha:
            whole = self.whole(pool_to(seen, seen.shape[1] * self.grid**2))
            terms.append((self.settings.alpha, self.term(batch, query, whole[:, None])))
        logged = {name: torch.stack([found[name] for _, found in terms]).mean() for name in terms[0][1]}
        return logged | {"loss": torch.stack([weight * found["loss"] for weight, found in terms]).sum()}

    def term(self, batch: Batch, query: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """The estimator for vectors (N x D) and the places of their images (N x P x D)."""
        places = keys.shape[1]
        candidates, keep = self.negatives(batch.key, batch.index, keys.flatten(1))
        others = candidates.unflatten(1, (places, -1)).flatten(0, 1)
        keep = keep.repeat_interleave(places, 1)
        return estimate(query, keys, others, keep, self.settings.estimator, self.settings.temperature)


@in_fp32
def estimate(
    query: Tensor, keys: Tensor, others: Tensor, keep: Tensor, estimator: str, tau: float
) -> dict[str, Tensor]:
    """The loss, the share of places with a higher score than all negatives, and a bound in nats where there is one.

    Args:
        query: N x D.
        keys: N x P x D, each of which belongs to its query.
        others: M x D.
        keep: N x M, bool: which of them are negatives of a query.
        estimator: info_nce, jsd or dv.
        tau: scores are dot products over tau.
    """
    positive, negative = torch.einsum("nd,npd->np", query, keys) / tau, query @ others.T / tau
    lowest = negative.masked_fill(~keep, float("-inf"))
    accuracy = (positive > lowest.amax(1, keepdim=True)).float().mean().detach()
    if estimator == "info_nce":  # one positive against all negatives: log(1 + sum exp(T- - T+))
        loss = F.softplus(torch.logsumexp(lowest, 1, keepdim=True) - positive).mean()
        bound = mutual_information_bound(loss, keep.sum(1).float().mean() + 1)
        return {"loss": loss, "accuracy": accuracy, "mi_bound": bound}
    loss = ESTIMATORS[estimator](positive, negative[keep])
    return {"loss": loss, "accuracy": accuracy} | ({"mi_bound": -loss.detach()} if estimator == "dv" else {})


@torch.no_grad()
def chosen(encoder: Encoder, layer: str | None, size: int) -> tuple[str, int, int]:
    """The map's layer, its channels and its side, for images of `size` pixels."""
    if layer is not None and layer not in encoder.layers:
        raise UserError(f"deep_infomax: the encoder has no layer '{layer}'; {did_you_mean(layer, encoder.layers)}")
    training = encoder.training
    encoder.eval()  # BatchNorm's statistics stay as they are
    maps = encoder.maps(encoder.mean.new_zeros(1, 3, size, size))
    encoder.train(training)
    large = [name for name, found in maps.items() if found.shape[3] >= 4]
    name = layer or (large or encoder.layers)[-1]
    return name, maps[name].shape[1], maps[name].shape[3]
