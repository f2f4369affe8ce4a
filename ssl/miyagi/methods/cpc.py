"""Contrastive predictive coding, CPC (van den Oord et al., arXiv 1807.03748): patches further down, from those above.

An image is cut into G x G overlapping patches, each encoded by itself: z_rc = g(f(patch_rc)). A context network sees
the rows from the top down, C_rc = c(f of rows <= r), and for each of several k a matrix W_k predicts row r + k:

    L = mean over k, r, c of -log( exp(W_k C_rc . z_(r+k)c / tau) / sum over j of exp(W_k C_rc . z_j / tau) ),

with j over the right patch and patches of the same and of other images of the batch, `number` of them drawn at each
step (the same for all predictions).
Paper: 64 of 256 pixels with an overlap of a half, 7 x 7 patches, a PixelCNN as c, up to 5 rows further down; Henaff et
al. (ICML 2020; first arXiv 2019) predict 64 dimensions scaled by 0.1 (tau 10, without normalisation) and leave out the
nearest rows, which overlap with what the context has seen: `skip`. c is masked by rows: a row below changes nothing
above, but a row is seen as a whole, because nothing is predicted sideways.

Left out are the second paper's layer normalisation (statistics of BatchNorm are shared by an image's patches and may
tell some of the answer; they are the encoder's own choice) and its augmentation of each patch by itself.
Small images: a patch has 8 pixels at 32 and is enlarged to the encoder's `min_size`; 49 patches of 16 x 16 cost 12
times as much as the image. A patch of 0.5 makes 3 x 3, with `steps` 2 and `skip` 0.
Loader: one view, the whole image.
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.patches import cut, enlarge
from miyagi.data.rng import bits
from miyagi.errors import UserError
from miyagi.losses.info_nce import info_nce
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.gather import gather, gather_detached
from miyagi.settings import Head, MethodSettings


class Settings(MethodSettings):
    """Settings of CPC."""

    patch: float = Field(0.25, gt=0, lt=1, description="side of a patch as a share of the image's")
    overlap: float = Field(0.5, ge=0, lt=1, description="of neighbouring patches, as a share of their side")
    steps: int = Field(5, ge=1, description="how many rows further down the last prediction is")
    skip: int = Field(1, ge=0, description="nearest rows that are not predicted: they overlap with the context's")
    number: int | None = Field(4096, ge=1, description="candidates, drawn anew at each step; null: all of the batch")
    temperature: float = Field(10.0, gt=0, description="tau: 10 to 100 without l2_normalize, 0.07 to 0.2 with it")
    l2_normalize: bool = False
    width: int = Field(256, ge=1, description="channels of the context network")
    layers: int = Field(3, ge=1, le=16, description="of the context network; each sees two rows further up")
    head: Head = Head(kind="linear", out=64)

    @model_validator(mode="after")
    def _possible(self) -> "Settings":
        if self.skip >= self.steps:
            raise ValueError(f"skip {self.skip} leaves nothing of steps {self.steps} to predict")
        return self


class Causal(nn.Module):
    """A residual block that sees a row and the two above it, and one column on each side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(width, width, 3)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        above = F.pad(F.relu(x), (1, 1, 2, 0))
        mixed: Tensor = self.mix(F.relu(self.look(above)))
        return x + mixed


class CPC(Method[Settings]):
    """Predictions down the columns of a grid of patches."""

    views = (View("image"),)

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.side = round(settings.patch * info.size)
        self.stride = max(1, round(self.side * (1 - settings.overlap)))
        self.grid = (info.size - self.side) // self.stride + 1
        if self.side < 4:
            raise UserError(f"cpc: images of {info.size} pixels give patches of {self.side}, and 4 is the least")
        if self.grid <= settings.steps:
            raise UserError(
                f"cpc: {self.grid} rows of patches are too few for steps {settings.steps}; lower steps or patch"
            )
        self.head = heads.build(settings.head, self.encoder.dim)
        out = heads.out_width(settings.head, self.encoder.dim)
        self.context = nn.Sequential(
            nn.Conv2d(self.encoder.dim, settings.width, 1), *(Causal(settings.width) for _ in range(settings.layers))
        )
        self.offsets = range(settings.skip + 1, settings.steps + 1)
        self.predict = nn.ModuleList(nn.Conv2d(settings.width, out, 1) for _ in self.offsets)

    def patches(self, x: Tensor) -> Tensor:
        """N x G^2 x 3 x side x side, row by row; what the grid leaves over is a margin."""
        margin = (x.shape[2] - self.side - (self.grid - 1) * self.stride) // 2
        place = torch.arange(self.grid**2, device=x.device).expand(len(x), -1)
        return cut(x, margin + place // self.grid * self.stride, margin + place % self.grid * self.stride, self.side)

    def latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's features as a map, N x D x G x G, and what is to be predicted, N x G^2 x out."""
        patches = self.patches(x)
        features = self.encoder(enlarge(patches.flatten(0, 1), self.encoder.min_size))
        target = self._unit(self.head(features)).unflatten(0, patches.shape[:2])
        return features.unflatten(0, (len(x), self.grid, self.grid)).permute(0, 3, 1, 2), target

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        latents, target = self.latents(batch.views[0])
        context = self.context(latents)
        place = torch.arange(self.grid**2, device=target.device)
        name = batch.index[:, None] * self.grid**2 + place  # each patch of the data has its own number
        candidates, names = gather(target.flatten(0, 1)), gather_detached(name.flatten())
        if self.settings.number is not None and self.settings.number < len(names):
            order = bits(batch.key, "cpc/negatives", names, 1)[:, 0]
            drawn = order.topk(self.settings.number, largest=False).indices
            candidates, names = candidates[drawn], names[drawn]
        found = []
        for offset, predict in zip(self.offsets, self.predict, strict=True):
            query = self._unit(predict(context[:, :, :-offset]).permute(0, 2, 3, 1).flatten(0, 2))
            below = place[offset * self.grid :]
            other = name[:, below].flatten()[:, None] != names
            key = target[:, below].flatten(0, 1)
            found.append(info_nce(query, key, candidates, self.settings.temperature, keep=other))
        losses, accuracies = zip(*found, strict=True)
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(accuracies).mean()}

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=1) if self.settings.l2_normalize else x.float()
