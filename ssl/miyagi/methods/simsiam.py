"""SimSiam (Chen and He, CVPR 2021): two views predict each other, and what is predicted takes no gradient.

    L = D(p_1, z_2) / 2 + D(p_2, z_1) / 2,  D(p, z) = -p.z / (|p| |z|) with z held constant,
    z_i = g(f(x_i)),  p_i = h(z_i).

BYOL without the moving average: the stopped gradient and the predictor h are enough against a constant solution, whose
L is -1 as well. output_std (paper, figure 2: near 1 spread out, 0 collapsed) tells the two apart.
Paper: batch 512, SGD with learning rate 0.05 batch / 256, weight decay 1e-4, cosine; g has three layers of 2048 with
BatchNorm on all, h is a bottleneck of 512. The paper keeps the predictor's learning rate constant (its table 1: 68.1
against 67.7 %); here it follows the cosine with all others.
BatchNorm: each view goes through the network by itself, as in the paper's Algorithm 1.
Loader: two views of the same recipe.
"""

from pydantic import Field
from torch import Tensor

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.self_distillation import negative_cosine, normalized_std
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.gather import gather_detached
from miyagi.settings import Head, MethodSettings


class Settings(MethodSettings):
    """Settings of SimSiam."""

    recipe: str = "moco_v2"
    head: Head = Head(width=2048, depth=2, out=2048, batch_norm=True, out_batch_norm=True)
    predictor_width: int = Field(512, ge=1, description="units of the predictor's hidden layer: a quarter of head.out")


class SimSiam(Method[Settings]):
    """Each view's prediction against the other view's projection."""

    views = (View("first", recipe=0), View("second", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.head = heads.build(settings.head, self.encoder.dim)
        width = heads.out_width(settings.head, self.encoder.dim)
        self.predictor = heads.build(Head(width=settings.predictor_width, out=width, batch_norm=True), width)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        first, second = [self.head(self.encoder(view)) for view in batch.views]
        loss = negative_cosine(self.predictor(first), second) + negative_cosine(self.predictor(second), first)
        return {"loss": loss / 2, "output_std": normalized_std(gather_detached(first))}
