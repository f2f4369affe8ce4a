"""Colorization (Zhang, Isola and Efros, ECCV 2016): which colours had this grey picture?

An image in Lab is parted into its lightness L, which the encoder is given, and its colours ab, which it must answer.
For each place h of the answer, with Z_h the soft encoding of its colour on Q bins and q_h the nearest bin,

    loss = - mean over h of v(q_h) sum over q of Z_hq log softmax(g(f(L)))_hq,
    v(q) ~ 1 / ((1 - lambda) p~(q) + lambda / Q),

with v scaled to a mean of 1 over the training data, and the prior p~ counted in one pass over it before the first epoch
(data/color_bins.py). `bins` and `neighbors` are the problem's complexity. Pictures are drawn by the annealed mean.
Paper: 224 pixels, answers of 56 x 56, 10 x 10 bins, 5 neighbours with sigma 5, lambda 0.5, T 0.38, batch 40.

The encoder takes RGB, so L is given as the grey of that lightness. The decoder g stands on the last map and goes where
the training ends; `head` is empty, as there is nothing on the pooled features. Colours of an answer's place are the
mean over its pixels: at 32 pixels and stride 4, 8 x 8 answers; at 28, 7 x 7.
Grey data is refused. Loader: one view; a recipe that changes colours changes the answers with them.
"""

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.color_bins import annealed_mean, gamut, nearest, rebalancing, soft_encode
from miyagi.data.lab import lab_to_rgb, rgb_to_lab
from miyagi.methods.base import Method
from miyagi.nn.gather import average_
from miyagi.nn.pixel_decoder import PixelDecoder, last_map, scale_for
from miyagi.settings import Fraction, MethodSettings


class Settings(MethodSettings):
    """Settings of colorization."""

    needs_color = True

    bins: float = Field(10.0, ge=4, le=60, description="side of a bin in the ab plane; 10 makes 309 bins")
    neighbors: int = Field(5, ge=1, le=10, description="bins that a colour is shared out among")
    sigma: float = Field(5.0, gt=0, description="of that sharing and of the prior's smoothing, in units of ab")
    uniform: Fraction = Field(0.5, description="lambda of class rebalancing; 1: all colours weigh the same")
    temperature: float = Field(0.38, gt=0, description="T of the annealed mean, for drawing only")
    stride: int = Field(4, ge=1, le=32, description="pixels of the image to a place of the answer")
    width: int = Field(64, ge=1, description="channels of the decoder")


class Colorization(Method[Settings]):
    """A distribution over colours for each place."""

    views = (View("image"),)
    bins: Tensor
    weight: Tensor

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.register_buffer("bins", gamut(settings.bins), persistent=False)  # the settings say which they are
        self.register_buffer("weight", torch.ones(len(self.bins)))
        channels, side = last_map(self.encoder, info.size)
        scale = scale_for(side, info.size, settings.stride)
        self.side = side * scale
        self.decoder = PixelDecoder(channels, scale, settings.width, len(self.bins))

    @torch.no_grad()
    def before_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        if epoch or self.settings.uniform == 1:
            return
        count = torch.zeros(len(self.bins), device=self.bins.device)
        for batch in batches:
            index, _ = nearest(self.truth(rgb_to_lab(batch.views[0])), self.bins)
            count += index.flatten().bincount(minlength=len(self.bins))
        average_([count])
        self.weight.copy_(rebalancing(count, self.bins, self.settings.sigma, self.settings.uniform))

    def truth(self, lab: Tensor) -> Tensor:
        """The colours to answer, N x 2 x side x side."""
        return F.adaptive_avg_pool2d(lab[:, 1:], self.side)

    def logits(self, lab: Tensor) -> Tensor:
        """The bins' scores from L alone, N x Q x side x side."""
        last = self.encoder.layers[-1]
        answers: Tensor = self.decoder(self.encoder.maps(self.asked(lab), [last])[last])
        return answers

    def asked(self, lab: Tensor) -> Tensor:
        """What the encoder is given: the grey of each pixel's lightness, N x 3 x H x W in [0, 1]."""
        grey = torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], 1)
        return lab_to_rgb(grey).contiguous(memory_format=torch.channels_last)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        lab = rgb_to_lab(batch.views[0])
        index, share = soft_encode(self.truth(lab), self.bins, self.settings.neighbors, self.settings.sigma)
        scores = self.logits(lab).float().permute(0, 2, 3, 1).log_softmax(3)
        cross_entropy = -(share * scores.gather(3, index)).sum(3)
        with torch.no_grad():
            accuracy = (scores.argmax(3) == index[..., 0]).float().mean()
        return {"loss": (self.weight[index[..., 0]] * cross_entropy).mean(), "accuracy": accuracy}

    def show(self, batch: Batch) -> dict[str, Tensor]:
        lab = rgb_to_lab(batch.views[0])
        colors = annealed_mean(self.logits(lab), self.bins, self.settings.temperature)
        return {
            "given": self.asked(lab),
            "answer": painted(lab, colors),
            "truth at its resolution": painted(lab, self.truth(lab)),
            "truth": batch.views[0],
        }


def painted(lab: Tensor, colors: Tensor) -> Tensor:
    """The lightness of `lab` with coarser colours (N x 2 x h x w), as RGB."""
    fine = F.interpolate(colors, size=lab.shape[2:], mode="bilinear", align_corners=False)
    return lab_to_rgb(torch.cat([lab[:, :1], fine], 1))
