"""Relative patch position (Doersch, Gupta and Efros, ICCV 2015): where does this patch lie, seen from that one?

An image's patches stand in a 3 x 3 grid. For the patch p_0 in the middle and each neighbour p_k, k = 1 to 8,

    L = -log softmax(g([h(f(p_0)), h(f(p_k))]))[k],

with the encoder f, a head h for each patch alone and a classifier g on the two (late fusion), so f sees one patch at a
time. All eight pairs of an image are in one batch; chance is 1 / 8.

Against shortcuts: a gap between patches and a jitter of each (lines that run on over an edge), and colour dropping (the
lens's chromatic aberration tells where a patch lies): two of a patch's three channels, drawn anew for each patch, are
replaced by the data's mean (the paper adds noise of a hundredth of the deviation, less than a grey level). The paper's
random downsampling of patches is left out. Paper: patches of 96 pixels from photographs of half a million pixels, gap
48, jitter 7, batch 512, 4 weeks of training.

Small images: the grid fills the view, so a patch has 7 pixels at 32 (6 at 28, 54 at 224) and is enlarged to the
encoder's `min_size`: conv4 then sees blurred patches of 16 x 16, whose scale is not that of the images downstream.
Loader: one view, uncropped as far as possible (recipe weak, whose shift mirrors up to 4 columns of the border into the
view, which may tell a side; but without a shift a few thousand images are learnt by heart: docs/methods.md).
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.patches import cut, enlarge
from miyagi.data.rng import bits, uniform
from miyagi.errors import UserError
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.settings import Fraction, Head, MethodSettings

CELLS = {4: (1, 3, 5, 7), 8: (0, 1, 2, 3, 5, 6, 7, 8)}
"""The neighbours' cells in the grid, row by row; the middle is cell 4."""


class Settings(MethodSettings):
    """Settings of relative patch position."""

    positions: Literal[4, 8] = Field(8, description="8: all neighbours; 4: those above, left, right and below")
    gap: float = Field(0.5, ge=0, le=2, description="between two patches, as a share of a patch")
    jitter: float = Field(7 / 96, ge=0, le=0.5, description="of a patch each way, as a share of it, rounded up")
    color_drop: Fraction = Field(1.0, description="share of patches that keep one channel of three")
    head: Head = Head(kind="linear", out=512)
    width: int = Field(512, ge=1, description="hidden units of the classifier on a pair")


class RelativePatch(Method[Settings]):
    """Eight classes: the neighbour's place."""

    views = (View("image"),)

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.cells = CELLS[settings.positions]
        self.side, self.gap, self.jitter = layout(info.size, settings.gap, settings.jitter)
        if self.side < 4:
            raise UserError(
                f"relative_patch: images of {info.size} pixels give patches of {self.side}, and 4 is the least; "
                "lower gap or jitter, or raise the data set's size"
            )
        self.color_drop = settings.color_drop
        self.head = heads.build(settings.head, self.encoder.dim)
        out = heads.out_width(settings.head, self.encoder.dim)
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Linear(2 * out, settings.width), nn.ReLU(), nn.Linear(settings.width, len(self.cells))
        )

    def patches(self, batch: Batch) -> Tensor:
        """The middle patch and then its neighbours, N x (1 + positions) x 3 x side x side, colours as they are."""
        x, cells = batch.views[0], torch.tensor((4, *self.cells), device=batch.index.device)
        span = 3 * self.side + 2 * self.gap + 2 * self.jitter
        origin = uniform(batch.key, "relative_patch/origin", batch.index, 2)[:, :, None] * (x.shape[2] - span + 1)
        jitter = uniform(batch.key, "relative_patch/jitter", batch.index, 18).reshape(-1, 2, 9)[:, :, cells]
        cell = torch.stack([cells // 3, cells % 3]) * (self.side + self.gap)
        corner = cell + origin.long() + (jitter * (2 * self.jitter + 1)).long()
        return cut(x, corner[:, 0], corner[:, 1], self.side)

    def drop_color(self, patches: Tensor, batch: Batch) -> Tensor:
        """Patches of which `color_drop` keep one channel, the others being the data's mean."""
        count = patches.shape[1]
        keep = bits(batch.key, "relative_patch/channel", batch.index, count) % 3
        whole = uniform(batch.key, "relative_patch/drop", batch.index, count) >= self.color_drop
        kept = whole[:, :, None] | (keep[:, :, None] == torch.arange(3, device=keep.device))
        return torch.where(kept[..., None, None], patches, self.encoder.mean)

    def logits(self, batch: Batch) -> Tensor:
        """N x positions (of the pair) x positions (of the answer)."""
        patches = self.drop_color(self.patches(batch), batch)
        inputs = enlarge(patches.flatten(0, 1), self.encoder.min_size)
        features = self.head(self.encoder(inputs)).unflatten(0, patches.shape[:2])
        middle, around = features[:, :1], features[:, 1:]
        answers: Tensor = self.classifier(torch.cat([middle.expand_as(around), around], 2))
        return answers

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = self.logits(batch).flatten(0, 1)
        target = torch.arange(len(self.cells), device=logits.device).repeat(len(batch))
        with torch.no_grad():
            accuracy = (logits.argmax(1) == target).float().mean()
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy}

    def show(self, batch: Batch) -> dict[str, Tensor]:
        patches, n = self.patches(batch), torch.arange(len(batch), device=batch.index.device)
        which = bits(batch.key, "relative_patch/show", batch.index, 1)[:, 0] % len(self.cells)
        middle, neighbour = patches[:, 0], patches[n, 1 + which]
        answer = self.logits(batch)[n, which].argmax(1)
        return {
            "middle": middle,
            "neighbour": neighbour,
            "answered place": self._placed(middle, neighbour, answer),
            "true place": self._placed(middle, neighbour, which),
        }

    def _placed(self, middle: Tensor, neighbour: Tensor, which: Tensor) -> Tensor:
        """Both patches on a grey grid, the neighbour in the cell of its class `which` (N)."""
        step = self.side + self.gap
        picture = middle.new_full((len(middle), 3, 2 * step + self.side, 2 * step + self.side), 0.5)
        picture[:, :, step : step + self.side, step : step + self.side] = middle
        for i, place in enumerate(which.tolist()):
            row, column = (step * part for part in divmod(self.cells[place], 3))
            picture[i, :, row : row + self.side, column : column + self.side] = neighbour[i]
        return picture


def layout(size: int, gap: float, jitter: float) -> tuple[int, int, int]:
    """Side, gap and jitter, in pixels, of the largest patches whose 3 x 3 grid (and jitter) fits in `size` pixels."""
    for side in range(size // 3, 0, -1):
        between, shift = round(gap * side), math.ceil(jitter * side)
        if 3 * side + 2 * between + 2 * shift <= size:
            return side, between, shift
    return 0, 0, 0
