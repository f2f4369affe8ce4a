"""Rotation prediction (Gidaris, Singh and Komodakis, ICLR 2018).

All four rotations (0, 90, 180, 270 degrees) of every image are in one batch, and a linear classifier says which is
which: L = mean over y of -log softmax(W f(rot(x, 90 y)) + b)[y].

Paper: SGD, learning rate 0.1, batch 128 x 4 rotations, random crops and flips. Loader: one view.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.rng import bits
from miyagi.methods.base import Method
from miyagi.settings import MethodSettings


class Settings(MethodSettings):
    """Settings of rotation prediction."""

    rotations: int = Field(
        4, ge=2, le=4, description="4: all quarter turns; 2: 0 and 180 degrees (0 to 270 by 90 for 3)"
    )


class Rotation(Method[Settings]):
    """Which quarter turn was applied?"""

    views = (View("image"),)

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.turns = (0, 2) if settings.rotations == 2 else tuple(range(settings.rotations))
        self.head = nn.Sequential(nn.Linear(self.encoder.dim, len(self.turns)))

    def rotate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """N x 3 x S x S to R N rotated images (counter-clockwise) and their R N classes, rotation by rotation."""
        rotated = torch.cat([torch.rot90(x, turn, (2, 3)) for turn in self.turns])
        classes = torch.arange(len(self.turns), device=x.device).repeat_interleave(len(x))
        return rotated.contiguous(memory_format=torch.channels_last), classes

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        images, target = self.rotate(batch.views[0])
        logits = self.head(self.encoder(images))
        with torch.no_grad():
            accuracy = (logits.argmax(1) == target).float().mean()
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy}

    def show(self, batch: Batch) -> dict[str, Tensor]:
        images = batch.views[0]
        drawn = bits(batch.key, "rotation/show", batch.index, 1)[:, 0] % len(self.turns)
        turned = turn(images, [self.turns[y] for y in drawn.tolist()])
        answer = self.head(self.encoder(turned)).argmax(1).tolist()
        return {"turned": turned, "turned back as answered": turn(turned, [-self.turns[y] for y in answer])}


def turn(images: Tensor, turns: list[int]) -> Tensor:
    """Each image by its own number of quarter turns, counter-clockwise."""
    return torch.stack([torch.rot90(image, k, (1, 2)) for image, k in zip(images, turns, strict=True)])
