"""Masked autoencoders (He et al., CVPR 2022): what is on the patches that were taken away?

Of an image's T patches a random share m is taken away. The encoder f, a vision transformer, is given the others alone;
a light decoder g gets its answers, and the same learned token in each empty place, with their positions, and

    L = mean over masked patches i of mean over pixels of (g(f(x_visible))_i - y_i)^2,
    y_i = (x_i - mean(x_i)) / sqrt(var(x_i) + 1e-6),

each patch normalised by all its own pixels (`normalize`; without: y = x). Patches that were seen carry no loss. `mask`
is the problem's complexity: at the paper's 75 % the gaps are too large to be filled in from their edges.
Paper: ViT-L/16 at 224, decoder of 8 blocks with 512 channels (1 block is as good after fine-tuning), AdamW with betas
(0.9, 0.95), learning rate 1.5e-4 x batch / 256, weight decay 0.05, 40 epochs of warm-up, 800 and more; crops and flips.
Its gain is seen after fine-tuning; linear probes and kNN, early in training above all, are below those of contrast.

The encoder must be a ViT (`encoder: {name: vit_tiny}`). The decoder goes where the training ends; `head` is empty.
Loader: one view, whose side is a multiple of the encoder's patch.
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.rng import uniform
from miyagi.errors import UserError
from miyagi.methods.base import Method
from miyagi.nn.encoders.vit_tiny import ViT
from miyagi.nn.explained import explained
from miyagi.nn.transformer import Block, MapNorm, initialize, positions
from miyagi.settings import MethodSettings


class Settings(MethodSettings):
    """Settings of masked autoencoders."""

    mask: float = Field(0.75, gt=0, lt=1, description="share of the patches that are taken away")
    normalize: bool = Field(True, description="answer each patch's pixels with its own mean and deviation taken off")
    decoder_width: int = Field(128, ge=4, description="channels of the decoder; a multiple of 4 and of decoder_heads")
    decoder_depth: int = Field(2, ge=1, le=16, description="blocks of the decoder")
    decoder_heads: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _shared_out(self) -> "Settings":
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise ValueError(f"decoder_width {self.decoder_width} must be a multiple of 4 and of decoder_heads")
        return self


class MAE(Method[Settings]):
    """The patches that were taken away, from those that were not."""

    views = (View("image"),)
    encoder: ViT

    def setup(self, settings: Settings, info: DataInfo) -> None:
        if not isinstance(self.encoder, ViT):
            raise UserError("mae takes patches away from a vision transformer: set `encoder: {name: vit_tiny}`")
        self.patch, self.normalized = self.encoder.patch, settings.normalize
        self.side, rest = divmod(info.size, self.patch)
        if rest or self.side < 2:
            raise UserError(
                f"mae: images of {info.size} pixels are no whole patches of {self.patch}: set encoder.patch"
            )
        self.kept = min(max(round(self.side**2 * (1 - settings.mask)), 1), self.side**2 - 1)
        width = settings.decoder_width
        self.into = nn.Linear(self.encoder.dim, width)
        self.empty = nn.Parameter(0.02 * torch.randn(1, width, 1))
        blocks = [Block(width, settings.decoder_heads) for _ in range(settings.decoder_depth)]
        self.decoder = nn.Sequential(*blocks, MapNorm(width, eps=1e-6))
        self.answer = nn.Linear(width, 3 * self.patch**2)
        initialize(self.into)
        initialize(self.answer)

    def visible(self, batch: Batch) -> Tensor:
        """Which patches are given, N x kept, in a random order; patches are counted row by row."""
        return uniform(batch.key, "mae/mask", batch.index, self.side**2).argsort(dim=1, stable=True)[:, : self.kept]

    def reconstruct(self, x: Tensor, visible: Tensor) -> Tensor:
        """The decoder's answers for all patches, N x T x 3 patch^2."""
        embed, *blocks = self.encoder.blocks.values()
        tokens = embed(self.encoder.normalize(x)).flatten(2)
        seen = tokens.gather(2, visible[:, None].expand(-1, tokens.shape[1], -1))[:, :, None]
        for block in blocks:
            seen = block(seen)
        seen = self.into(seen[:, :, 0].transpose(1, 2)).transpose(1, 2)
        places = self.empty.to(seen.dtype).expand(len(x), -1, self.side**2)
        places = places.scatter(2, visible[:, None].expand_as(seen), seen).unflatten(2, (self.side, self.side))
        decoded = self.decoder(places + positions(places.shape[1], self.side, self.side, places))
        answers: Tensor = self.answer(decoded.flatten(2).transpose(1, 2))
        return answers

    def target(self, x: Tensor) -> Tensor:
        """y, N x T x 3 patch^2."""
        patches = patchify(x, self.patch)
        if self.normalized:
            var, mean = torch.var_mean(patches, dim=2, keepdim=True)
            patches = (patches - mean) / (var + 1e-6).sqrt()
        return patches

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, visible = batch.views[0], self.visible(batch)
        target = self.target(x)
        error = (self.reconstruct(x, visible).float() - target).square().mean(2)
        masked = torch.ones_like(error).scatter(1, visible, 0.0)
        loss = (error * masked).sum() / masked.sum()
        return {"loss": loss, "explained": explained(loss, target[masked.bool()])}

    def show(self, batch: Batch) -> dict[str, Tensor]:
        x, visible = batch.views[0], self.visible(batch)
        truth, answer = patchify(x, self.patch), self.reconstruct(x, visible).float()
        if self.normalized:  # drawn with the mean and deviation that the answer leaves open
            var, mean = torch.var_mean(truth, dim=2, keepdim=True)
            answer = answer * (var + 1e-6).sqrt() + mean
        seen = torch.zeros_like(truth[:, :, :1]).scatter(1, visible[:, :, None], 1.0)
        pictures = {"given": seen * truth + (1 - seen) * 0.5, "answer": seen * truth + (1 - seen) * answer}
        return {name: unpatchify(each, self.patch).clamp(0, 1) for name, each in pictures.items()} | {"truth": x}


def patchify(x: Tensor, patch: int) -> Tensor:
    """N x 3 x S x S to N x T x 3 patch^2, patches row by row."""
    return F.unfold(x, patch, stride=patch).transpose(1, 2)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """What `patchify` took apart."""
    side = round(patches.shape[1] ** 0.5) * patch
    return F.fold(patches.transpose(1, 2), side, patch, stride=patch)
