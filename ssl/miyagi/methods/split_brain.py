"""Split-brain autoencoders (Zhang, Isola and Efros, CVPR 2017): each half of the encoder predicts what the other sees.

An image in Lab is parted into L and ab. Half f_1 sees L and answers ab in Q bins of the plane, half f_2 sees ab and
answers L in bins; for each place h of the answer,

    loss = - mean over h of log softmax(g_1(f_1(L)))_h[bin of ab_h] + log softmax(g_2(f_2(ab)))_h[bin of L_h].

Targets are one bin each, without soft encoding or rebalancing. Downstream keeps [f_1, f_2], so the encoder is a pair of
half encoders (nn/encoders/pair.py), each with half the `width` where the encoder has one: as many channels in all as
the other experiments' encoder. For a floor with the same encoder, give a `random` experiment
`encoder: {name: pair, of: {...}}` as this one's experiment.yaml says it.
Paper: AlexNet in two halves, 180 pixels, answers of 12 x 12, 313 bins of ab.

The decoders g stand on the last maps and go where the training ends; `head` is empty. An answer's place is the mean
over its pixels: at 32 pixels and stride 4, 8 x 8 answers; at 28, 7 x 7.
Grey data is refused. Loader: one view; a recipe that changes colours changes the answers with them.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.color_bins import annealed_mean, gamut, nearest
from miyagi.data.lab import lab_to_rgb, rgb_to_lab
from miyagi.methods.base import Method
from miyagi.nn.encoders.pair import Pair, halves
from miyagi.nn.pixel_decoder import PixelDecoder, last_map, scale_for
from miyagi.settings import MethodSettings


class Settings(MethodSettings):
    """Settings of split-brain autoencoders."""

    encoder_pair = True
    needs_color = True

    bins: float = Field(10.0, ge=4, le=60, description="side of a bin in the ab plane; 10 makes 309 bins")
    light_bins: int = Field(100, ge=2, le=1000, description="bins of L")
    temperature: float = Field(0.38, gt=0, description="T of the annealed mean, for drawing only")
    stride: int = Field(4, ge=1, le=32, description="pixels of the image to a place of the answer")
    width: int = Field(64, ge=1, description="channels of each decoder")


class SplitBrain(Method[Settings]):
    """L -> ab and ab -> L."""

    views = (View("image"),)
    encoder: Pair
    bins: Tensor

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.register_buffer("bins", gamut(settings.bins), persistent=False)  # the settings say which they are
        channels, side = last_map(self.encoder.first, info.size)
        scale = scale_for(side, info.size, settings.stride)
        self.side = side * scale
        self.color_decoder = PixelDecoder(channels, scale, settings.width, len(self.bins))
        self.light_decoder = PixelDecoder(channels, scale, settings.width, settings.light_bins)

    def target(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """The bins of ab and of L at each place, each N x side x side."""
        coarse = F.adaptive_avg_pool2d(lab, self.side)
        light = (coarse[:, 0] * (self.settings.light_bins / 100)).long()
        return nearest(coarse[:, 1:], self.bins)[0][..., 0], light.clamp(0, self.settings.light_bins - 1)

    def logits(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of ab's bins (from L) and of L's (from ab), N x bins x side x side."""
        light, color = halves(lab)
        last = self.encoder.layers[-1]
        return (
            self.color_decoder(self.encoder.first.maps(light, [last])[last]),
            self.light_decoder(self.encoder.second.maps(color, [last])[last]),
        )

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        lab = rgb_to_lab(batch.views[0])
        losses, rights = [], []
        for logits, target in zip(self.logits(lab), self.target(lab), strict=True):
            scores = logits.float().permute(0, 2, 3, 1).flatten(0, 2)
            losses.append(F.cross_entropy(scores, target.flatten()))
            rights.append((scores.detach().argmax(1) == target.flatten()).float().mean())
        return {
            "loss": losses[0] + losses[1],
            "accuracy": (rights[0] + rights[1]) / 2,
            "accuracy_ab": rights[0],
            "accuracy_l": rights[1],
        }

    def show(self, batch: Batch) -> dict[str, Tensor]:
        lab = rgb_to_lab(batch.views[0])
        colors, light = self.logits(lab)
        middles = (torch.arange(self.settings.light_bins, device=lab.device) + 0.5) * (100 / self.settings.light_bins)
        ab = annealed_mean(colors, self.bins, self.settings.temperature)
        answered = annealed_mean(light, middles[:, None], self.settings.temperature)
        grey, flat = torch.zeros_like(lab[:, 1:]), torch.full_like(lab[:, :1], 50)

        def fine(x: Tensor) -> Tensor:
            return F.interpolate(x, size=lab.shape[2:], mode="bilinear", align_corners=False)

        return {
            "given L": lab_to_rgb(torch.cat([lab[:, :1], grey], 1)),
            "answered ab": lab_to_rgb(torch.cat([lab[:, :1], fine(ab)], 1)),
            "given ab": lab_to_rgb(torch.cat([flat, lab[:, 1:]], 1)),
            "answered L": lab_to_rgb(torch.cat([fine(answered), lab[:, 1:]], 1)),
            "truth": batch.views[0],
        }
