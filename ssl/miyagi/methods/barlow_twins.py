"""Barlow Twins (Zbontar et al., ICML 2021): the cross-correlation of two views' embeddings should be the identity.

    L = sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2,
    C_ij = mean over the batch of a_i b_j,  a and b the embeddings of both views, standardised over the batch.

The diagonal asks for invariance; the rest, that no two dimensions say the same, which a constant embedding cannot meet.
C is that of the images of all processes, of one of `pretrain.accumulate` parts of a batch.
Paper: lambda 0.005, batch 2048 (256 does as well), LARS with learning rate 0.2 batch / 256 (biases 0.0048), weight
decay 1.5e-6, 1000 epochs, 10 of warm-up; three layers of 8192 units, and wider is better: C has as many rows. On small
images 2048 is enough, and a head of 8192 is much larger than a small encoder.
BatchNorm: the head ends in one without scale and shift, as in the authors' code, which is the standardisation of a and
b; without it they are standardised all the same. Each view goes through the network by itself (Algorithm 1).
Loader: two views of unlike recipes, BYOL's.
"""

from pydantic import Field
from torch import Tensor

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.redundancy import barlow_twins
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.gather import gather
from miyagi.settings import Head, MethodSettings


class Settings(MethodSettings):
    """Settings of Barlow Twins."""

    recipe: str = "byol"
    redundancy: float = Field(5e-3, ge=0, description="lambda, the weight of the off-diagonal terms")
    head: Head = Head(width=8192, depth=2, out=8192, batch_norm=True, out_batch_norm=True)


class BarlowTwins(Method[Settings]):
    """Two views, one cross-correlation."""

    views = (View("first", recipe=0), View("second", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.redundancy = settings.redundancy
        self.head = heads.build(settings.head, self.encoder.dim)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        first, second = [gather(self.head(self.encoder(view))) for view in batch.views]
        terms = barlow_twins(first, second)
        loss = terms.invariance + self.redundancy * terms.redundancy
        return {"loss": loss, "invariance": terms.invariance, "redundancy": terms.redundancy}
