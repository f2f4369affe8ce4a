"""Jigsaw puzzles (Noroozi and Favaro, ECCV 2016): in which order do these nine tiles lie?

The tiles t_1 to t_9 of an image's 3 x 3 cells are laid out by one of K permutations pi, and

    L = -log softmax(g([h(f(t_pi(1))), ..., h(f(t_pi(9)))]))[pi],

with the encoder f and a head h for each tile alone, and a classifier g on all nine. The K permutations are picked for
the largest Hamming distances (data/permutations.py); K is the problem's complexity (Goyal et al., ICCV 2019: 100 to
10,000 on ImageNet, more is better for larger networks). Chance is 1 / K.

Against shortcuts: a tile is a random crop of its cell, so edges do not meet (paper: 64 of 75 pixels, a gap of 11 on
average); each channel of each tile is normalised by itself, so mean and contrast do not tell neighbours; 30 % of the
images are grey (recipe jigsaw), against chromatic aberration. The paper's shift of colour channels is left out.
Paper: 256 images a batch, K = 1000, SGD with learning rate 0.01, 350,000 steps; h has 512 units, g 4096.

Small images: a tile has 8 of its cell's 10 pixels at 32 (7 of 9 at 28, 63 of 74 at 224) and is enlarged to the
encoder's `min_size`: conv4 then sees blurred tiles of 16 x 16, whose scale is not that of the images downstream.
Loader: one view, the whole image.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.patches import cut, enlarge, mosaic, standardize
from miyagi.data.permutations import permutation_set
from miyagi.data.rng import uniform
from miyagi.errors import UserError
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.settings import Head, MethodSettings


class Settings(MethodSettings):
    """Settings of jigsaw puzzles."""

    recipe: str = "jigsaw"
    permutations: int = Field(1000, ge=2, le=10000, description="K, the classes")
    puzzles: int = Field(1, ge=1, le=64, description="permutations an image and step; its tiles are encoded once")
    tile: float = Field(64 / 75, gt=0, le=1, description="side of a tile as a share of its cell's; the rest is the gap")
    head: Head = Head(kind="linear", out=512)
    width: int = Field(4096, ge=1, description="hidden units of the classifier on all tiles")


class Jigsaw(Method[Settings]):
    """K classes: the permutation."""

    views = (View("image"),)
    permutations: Tensor

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.cell = info.size // 3
        self.side = int(settings.tile * self.cell)
        if self.side < 4:
            raise UserError(
                f"jigsaw: images of {info.size} pixels give tiles of {self.side}, and 4 is the least; "
                "raise tile or the data set's size"
            )
        self.puzzles = settings.puzzles
        chosen = torch.tensor(permutation_set(settings.permutations))
        self.register_buffer("permutations", chosen, persistent=False)  # the settings say which they are
        self.head = heads.build(settings.head, self.encoder.dim)
        out = heads.out_width(settings.head, self.encoder.dim)
        self.classifier = nn.Sequential(
            nn.ReLU(),
            nn.Linear(9 * out, settings.width),
            nn.ReLU(),
            nn.Linear(settings.width, settings.permutations),
        )

    def tiles(self, batch: Batch) -> Tensor:
        """N x 9 x 3 x side x side: a random crop of each cell, row by row; what 3 cells leave over is a margin."""
        x, cell = batch.views[0], torch.arange(9, device=batch.index.device)
        corner = torch.stack([cell // 3, cell % 3]) * self.cell + (x.shape[2] - 3 * self.cell) // 2
        shift = uniform(batch.key, "jigsaw/crop", batch.index, 18).reshape(-1, 2, 9)
        corner = corner + (shift * (self.cell - self.side + 1)).long()
        return cut(x, corner[:, 0], corner[:, 1], self.side)

    def target(self, batch: Batch) -> Tensor:
        """N x puzzles: which permutations an image's tiles are laid out by."""
        draws = uniform(batch.key, "jigsaw/permutation", batch.index, self.puzzles)
        return (draws * len(self.permutations)).long()

    def logits(self, tiles: Tensor, target: Tensor) -> Tensor:
        """N x puzzles x K, for tiles (N x 9 x 3 x s x s) in their own order."""
        own = standardize(tiles).flatten(0, 1) * self.encoder.std + self.encoder.mean  # which the encoder takes off
        features = self.head(self.encoder(enlarge(own, self.encoder.min_size))).unflatten(0, tiles.shape[:2])
        image = torch.arange(len(tiles), device=tiles.device)[:, None, None]
        answers: Tensor = self.classifier(features[image, self.permutations[target]].flatten(2))
        return answers

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        target = self.target(batch)
        logits = self.logits(self.tiles(batch), target)
        with torch.no_grad():
            accuracy = (logits.argmax(2) == target).float().mean()
        return {"loss": F.cross_entropy(logits.flatten(0, 1), target.flatten()), "accuracy": accuracy}

    def show(self, batch: Batch) -> dict[str, Tensor]:
        tiles, target = self.tiles(batch), self.target(batch)[:, :1]
        answer = self.permutations[self.logits(tiles, target).argmax(2)[:, 0]]
        image = torch.arange(len(batch), device=tiles.device)[:, None]
        shuffled = tiles[image, self.permutations[target[:, 0]]]
        solved = shuffled[image, answer.argsort(1)]  # each tile where the answer says that it came from
        return {"puzzle": mosaic(shuffled), "answer": mosaic(solved), "truth": mosaic(tiles)}
