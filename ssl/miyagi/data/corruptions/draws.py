"""The random numbers of one corruption, by sample index."""

import math
from dataclasses import dataclass

from torch import Tensor

from miyagi.data import rng


@dataclass(frozen=True)
class Draws:
    """Draws of the samples `index` (N) from streams that begin with `name`; different `what` share nothing."""

    key: rng.Key
    name: str
    index: Tensor

    def uniform(self, what: str, *shape: int) -> Tensor:
        """N x shape, in [0, 1)."""
        return rng.uniform(self.key, f"{self.name}/{what}", self.index, math.prod(shape)).reshape(-1, *shape)

    def normal(self, what: str, *shape: int) -> Tensor:
        """N x shape, standard normal."""
        return rng.normal(self.key, f"{self.name}/{what}", self.index, math.prod(shape)).reshape(-1, *shape)
