"""BYOL (Grill et al., NeurIPS 2020): predict what a slowly moving copy of the network makes of the other view.

    L = sum over both orders (v, v') of mean | q(g(f(v))) / |.| - g'(f'(v')) / |.| |^2,
    target (f', g') <- m (f', g') + (1 - m) (f, g),  m = 1 - (1 - 0.996) (cos(pi progress) + 1) / 2.

There are no negatives: that the target takes no gradient and moves slowly, and that only the online side has a
predictor q, is what keeps the constant solution away. L lies in [0, 8]; output_std (near 1: spread out, 0: collapsed)
says what L alone cannot.
Paper: batch 4096, LARS with learning rate 0.2 batch / 256, weight decay 1.5e-6, 1000 epochs, 10 of warm-up; projector
and predictor have one hidden layer of 4096 units with BatchNorm and 256 outputs.
BatchNorm: each view goes through the online network, and through the target, by itself, as in the reference code; the
two recipes differ, so a joint batch would mix two kinds of statistics. The target normalises by its own batches.
Loader: two views of unlike recipes.
"""

import torch
from pydantic import Field
from torch import Tensor

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.self_distillation import normalized_distance, normalized_std
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.ema import cosine_momentum, ema, frozen_copy
from miyagi.nn.gather import gather_detached
from miyagi.settings import Fraction, Head, MethodSettings


class Settings(MethodSettings):
    """Settings of BYOL."""

    recipe: str = "byol"
    momentum: Fraction = Field(0.996, description="m of the target at the first step; it rises to 1 by a cosine")
    head: Head = Head(width=4096, out=256, batch_norm=True)
    predictor_width: int = Field(4096, ge=1, description="units of the predictor's hidden layer")


class BYOL(Method[Settings]):
    """The online network predicts the target's projection."""

    views = (View("first", recipe=0), View("second", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.momentum = settings.momentum
        self.head = heads.build(settings.head, self.encoder.dim)
        width = heads.out_width(settings.head, self.encoder.dim)
        self.predictor = heads.build(Head(width=settings.predictor_width, out=width, batch_norm=True), width)
        self.target_encoder = frozen_copy(self.encoder)
        self.target_head = frozen_copy(self.head)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        first, second = [self.head(self.encoder(view)) for view in batch.views]
        with torch.no_grad():
            targets = [self.target_head(self.target_encoder(view)) for view in batch.views]
        loss = normalized_distance(self.predictor(first), targets[1])
        loss = loss + normalized_distance(self.predictor(second), targets[0])
        return {"loss": loss, "output_std": normalized_std(gather_detached(first))}

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(self.momentum, progress)
        ema(self.target_encoder, self.encoder, momentum)
        ema(self.target_head, self.head, momentum)
