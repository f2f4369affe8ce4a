"""The floor from above: cross-entropy on every training label, through the same evaluations.

    L = -log softmax(W f(x) + b)[y]

Loader: one view; the only method that reads labels.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.errors import UserError
from miyagi.methods.base import Method
from miyagi.settings import MethodSettings


class Settings(MethodSettings):
    """Settings of the supervised floor."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)


class Supervised(Method[Settings]):
    """A linear classifier on the encoder, trained together."""

    views = (View("image"),)

    def setup(self, settings: Settings, info: DataInfo) -> None:
        if info.classes < 2:
            raise UserError(
                "supervised learns from labels, but the training images have none to tell apart: leave it out, or set "
                "`dataset` to one with labels"
            )
        self.head = nn.Sequential(nn.Linear(self.encoder.dim, info.classes))
        self.label_smoothing = settings.label_smoothing

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = self.head(self.encoder(batch.views[0]))
        loss = F.cross_entropy(logits, batch.label, label_smoothing=self.label_smoothing)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == batch.label).float().mean()
        return {"loss": loss, "accuracy": accuracy}
