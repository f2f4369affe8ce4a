"""Denoising autoencoders (Vincent et al., ICML 2008): what did this image look like before it was spoilt?

An image x is corrupted to x~, the encoder f is given x~, and a decoder g must answer x:

    L = mean over all pixels and channels of (g(f(x~)) - x)^2,  x~ ~ q(x~ | x).

`masking`: each pixel is black with probability `corruption`, the papers' destruction by zeros (`cell` above 1: squares
of pixels, which neighbours cannot fill in). `gaussian`: x~ = x + corruption e, e ~ N(0, 1) for each pixel and channel
(Vincent et al., JMLR 2010). With corruption 0 it is the plain autoencoder (Hinton and Salakhutdinov, Science 2006):
only the narrow middle keeps it from copying, and it can be expected to be little better than its pixels.
Paper: MNIST, masking 10 to 40 % (here 25 %), a layer at a time with tied weights, sigmoid and cross-entropy; here all
layers at once, a linear answer and squared error, as Vincent et al. (2010) for inputs that are real numbers.

The decoder stands on the encoder's last map, answers at the image's size and goes where the training ends; `head` is
empty. Loader: one view.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.rng import normal, uniform
from miyagi.methods.base import Method
from miyagi.nn.explained import explained
from miyagi.nn.pixel_decoder import PixelDecoder, last_map
from miyagi.settings import Fraction, MethodSettings


class Settings(MethodSettings):
    """Settings of denoising autoencoders."""

    noise: Literal["masking", "gaussian"] = "masking"
    corruption: Fraction = Field(
        0.25, description="masking: share of the pixels; gaussian: standard deviation, white being 1; 0: plain"
    )
    cell: int = Field(1, ge=1, le=64, description="masking: side of the squares that go together, in pixels")
    width: int = Field(64, ge=1, description="channels of the decoder")


class DenoisingAE(Method[Settings]):
    """The image itself, from a spoilt copy."""

    views = (View("image"),)

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        channels, side = last_map(self.encoder, info.size)
        self.size = info.size
        self.decoder = PixelDecoder(channels, -(-info.size // side), settings.width, 3)

    def corrupt(self, batch: Batch) -> Tensor:
        """What the encoder is given, N x 3 x S x S; gaussian noise may leave [0, 1]."""
        x, share = batch.views[0], self.settings.corruption
        if share == 0:
            return x
        if self.settings.noise == "gaussian":
            noise = normal(batch.key, "denoising_ae/noise", batch.index, x[0].numel())
            return x + share * noise.view_as(x)
        cell = self.settings.cell
        cells = -(-x.shape[2] // cell)
        kept = uniform(batch.key, "denoising_ae/mask", batch.index, cells**2).view(-1, 1, cells, cells) >= share
        kept = kept.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[:, :, : x.shape[2], : x.shape[3]]
        return (x * kept).contiguous(memory_format=torch.channels_last)

    def reconstruct(self, x: Tensor) -> Tensor:
        """N x 3 x S x S to the answer, as large."""
        last = self.encoder.layers[-1]
        answer = self.decoder(self.encoder.maps(x, [last])[last])
        edge = answer.shape[2] - self.size  # where the map's side does not divide the image's
        return F.pad(answer, [-(edge // 2), edge // 2 - edge] * 2) if edge else answer

    def target(self, batch: Batch) -> Tensor:
        """The image before it was corrupted."""
        return batch.views[0]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        target = self.target(batch)
        loss = F.mse_loss(self.reconstruct(self.corrupt(batch)).float(), target)
        return {"loss": loss, "explained": explained(loss, target)}

    def show(self, batch: Batch) -> dict[str, Tensor]:
        corrupted = self.corrupt(batch)
        return {
            "corrupted": corrupted.clamp(0, 1),
            "reconstruction": self.reconstruct(corrupted).float().clamp(0, 1),
            "truth": batch.views[0],
        }
