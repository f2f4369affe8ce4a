"""What a method is given: the data set's facts once, and a batch at each step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from miyagi.data.rng import Key
from miyagi.errors import UserError


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of the data before training.

    Attributes:
        n: training images.
        classes: number of labels; only the supervised floor uses it.
        size: side of the stored images, in pixels.
        mean, std: of each channel over the training split, in [0, 1].
        color: whether any training image has a colour; where not, all three channels are equal.
    """

    n: int
    classes: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color: bool = True

    def require_color(self, method: str) -> None:
        """Raise a UserError where `method`, which learns from colours, has none to learn from."""
        if not self.color:
            raise UserError(
                f"{method} learns from colours, but the training images are all grey: set `dataset` to one with colours"
            )


@dataclass(frozen=True)
class View:
    """One view that a method asks the loader for.

    Attributes:
        name: names the view's random stream; two views with different names never share a draw.
        size: side of the view, in pixels; None: the stored size.
        recipe: which of the experiment's view recipes makes it, taken in turn; None: the image as it is.
    """

    name: str
    size: int | None = None
    recipe: int | None = 0


@dataclass(frozen=True)
class Batch:
    """One step's data.

    Attributes:
        views: one tensor a view, N x 3 x H x W, float in [0, 1]; sizes may differ.
        index: N, int64: the samples' positions in the training split.
        label: N, int64; only the supervised floor reads it.
        key: seed and epoch, for randomness inside a method.
    """

    views: list[Tensor]
    index: Tensor
    label: Tensor
    key: Key

    def __len__(self) -> int:
        return len(self.index)

    def joined(self) -> Tensor:
        """All views (of one size) in one tensor, view by view: one forward pass, one BatchNorm batch."""
        return torch.cat(self.views)
