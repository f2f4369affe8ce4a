"""PIRL (Misra and van der Maaten, CVPR 2020): an image and its jigsaw puzzle are the same to the network.

    L = lambda L_c(g(tiles), m_i) + (1 - lambda) L_c(f(image), m_i),  m_i <- m m_i + (1 - m) f(image), at unit length,

with m_i what a memory bank holds of image i, and L_c a contrastive loss whose negatives are K other images of the bank.
f is the encoder and a linear head; g encodes nine tiles each for itself, brings each to as many dimensions, lays them
out in an order drawn from all 9!, and a linear layer makes one vector of the nine. The puzzle's order is not asked for,
as by jigsaw: it is what the features should not depend on. Image and tiles meet through the bank alone; the second term
keeps the bank's features from running away.
Paper: lambda 0.5, tau 0.07, K 32,000, m 0.5, 128 dimensions; 800 epochs, batch 1024, learning rate 0.12, cosine. L_c is
the authors' NCE, with a constant Z for images and one for tiles (losses/nce.py); the paper writes h with the negatives'
sum in its place: that normalisation is `loss: info_nce`.

Tiles are cut as in the jigsaw method: at 32 pixels 7 of a cell's 10, enlarged to the encoder's `min_size`. Mean and
contrast of a tile stay as they are, as in the paper. All nine go through the encoder by themselves, in a forward pass
of their own, because their size is not the image's. Colours are jittered for all tiles of a puzzle alike.
Loader: the image, and a larger cut for the tiles (recipe pirl).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.patches import cut, enlarge, mosaic
from miyagi.data.rng import bits, uniform
from miyagi.errors import UserError
from miyagi.losses.contrast import contrast
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.gather import gather
from miyagi.nn.memory_bank import MemoryBank
from miyagi.nn.negatives import FromBank
from miyagi.nn.partition import Partition
from miyagi.settings import ContrastiveSettings, Fraction, Head


class Settings(ContrastiveSettings):
    """Settings of PIRL."""

    recipe: str = "pirl"
    loss: Literal["info_nce", "nce", "n_pair", "margin", "triplet", "jsd", "dv"] = "nce"
    temperature: float = Field(0.07, gt=0, description="tau: 0.07 to 0.2 with l2_normalize, 10 to 100 without")
    negatives: Literal["bank"] = "bank"
    number: int | None = Field(32000, ge=1, description="negatives of a query, drawn anew at each step; null: all")
    weight: Fraction = Field(0.5, description="lambda: of the tiles' loss; the rest is the image's")
    tile: float = Field(64 / 85, gt=0, le=1, description="side of a tile as a share of its cell's; the rest is the gap")
    head: Head = Head(kind="linear", out=128)


class PIRL(Method[Settings]):
    """Tiles and image, each against the bank."""

    views = (View("image", recipe=0), View("tiles", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.cell = info.size // 3
        self.side = int(settings.tile * self.cell)
        if self.side < 4:
            raise UserError(
                f"pirl: images of {info.size} pixels give tiles of {self.side}, and 4 is the least; "
                "raise tile or the data set's size"
            )
        self.head = heads.build(settings.head, self.encoder.dim)
        self.tile_head = heads.build(settings.head, self.encoder.dim)
        out = heads.out_width(settings.head, self.encoder.dim)
        self.joint = nn.Linear(9 * out, out)
        self.negatives = FromBank(
            settings.number, MemoryBank(info.n, out, settings.bank_momentum, normalize=settings.l2_normalize)
        )
        self.tile_partition, self.image_partition = Partition(info.n), Partition(info.n)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def tiles(self, batch: Batch) -> Tensor:
        """N x 9 x 3 x side x side: a random crop of each cell, in the puzzle's order."""
        x, cell = batch.views[1], self.order(batch)
        corner = torch.stack([cell // 3, cell % 3], 1) * self.cell + (x.shape[2] - 3 * self.cell) // 2
        shift = uniform(batch.key, "pirl/crop", batch.index, 18).reshape(-1, 2, 9)
        corner = corner + (shift * (self.cell - self.side + 1)).long()
        return cut(x, corner[:, 0], corner[:, 1], self.side)

    def order(self, batch: Batch) -> Tensor:
        """N x 9: which cell stands in each place, any of the 9! orders."""
        return bits(batch.key, "pirl/order", batch.index, 9).argsort(1)

    def embed_tiles(self, tiles: Tensor) -> Tensor:
        """N x 9 x 3 x s x s to N x D."""
        features = self.tile_head(self.encoder(enlarge(tiles.flatten(0, 1), self.encoder.min_size)))
        return self._unit(self.joint(features.unflatten(0, tiles.shape[:2]).flatten(1)))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        image = self._unit(self.head(self.encoder(batch.views[0])))
        puzzle = self.embed_tiles(self.tiles(batch))
        self._pending.append((batch.index, image.detach()))
        key = self.negatives.bank.features[batch.index]
        candidates, _ = self.negatives(batch.key, batch.index, image)
        of_tiles, of_image = (
            contrast(query, key, candidates, None, self.settings, partition, gather)
            for query, partition in ((puzzle, self.tile_partition), (image, self.image_partition))
        )
        share = self.settings.weight
        return {
            "loss": share * of_tiles["loss"] + (1 - share) * of_image["loss"],
            "accuracy": of_tiles["accuracy"],
            "accuracy_image": of_image["accuracy"],
        }

    def after_step(self, progress: float) -> None:
        for index, features in self._pending:
            self.negatives.update(index, features)
        self._pending.clear()

    def show(self, batch: Batch) -> dict[str, Tensor]:
        return {"image": batch.views[0], "puzzle": mosaic(self.tiles(batch))}

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=1) if self.settings.l2_normalize else x.float()
