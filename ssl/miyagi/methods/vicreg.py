"""VICReg (Bardes, Ponce and LeCun, ICLR 2022): variance, invariance and covariance, each view's by itself.

    L = 25 mean (a - b)^2 + 25 (v(a) + v(b)) / 2 + 1 (c(a) + c(b)),
    v(z) = mean_j max(0, 1 - sqrt(Var(z_j) + 1e-4)),  c(z) = (1 / D) sum_{i != j} Cov(z)_ij^2.

The variance term keeps each dimension's deviation above 1, and the covariance term keeps dimensions apart; without the
first all embeddings shrink to a point. Both are those of the images of all processes, of one of `pretrain.accumulate`
parts of a batch. Embeddings are not normalised.
Paper: weights 25, 25, 1, batch 2048, LARS with learning rate 0.2 batch / 256, weight decay 1e-6, 1000 epochs, 10 of
warm-up; an expander of three layers of 8192 units. On small images 2048 is enough.
BatchNorm: each view goes through the network by itself, as in the authors' code.
Loader: two views of unlike recipes, BYOL's.
"""

from pydantic import Field
from torch import Tensor

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.redundancy import vicreg
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.gather import gather
from miyagi.settings import Head, MethodSettings


class Settings(MethodSettings):
    """Settings of VICReg."""

    recipe: str = "byol"
    invariance: float = Field(25.0, ge=0, description="weight of the distance between views (lambda)")
    variance: float = Field(25.0, ge=0, description="weight of the hinge on deviations (mu); 0 collapses")
    covariance: float = Field(1.0, ge=0, description="weight of the off-diagonal covariances (nu)")
    head: Head = Head(width=8192, depth=2, out=8192, batch_norm=True)


class VICReg(Method[Settings]):
    """Two views, and the statistics of each."""

    views = (View("first", recipe=0), View("second", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.head = head = heads.build(settings.head, self.encoder.dim)
        if len(head):  # no term sees a shift of all embeddings, so a bias would only drift; the authors' code has none
            head[-1].register_parameter("bias", None)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        first, second = [gather(self.head(self.encoder(view))) for view in batch.views]
        terms, weights = vicreg(first, second), self.settings
        loss = weights.invariance * terms.invariance + weights.variance * terms.variance
        loss = loss + weights.covariance * terms.covariance
        return {"loss": loss, **terms._asdict()}
