"""SimCLR (Chen et al., ICML 2020): two views of an image agree, all other views of the batch are pushed away.

    L = mean over the 2N views of -log( exp(z_i.z_j / tau) / sum over k != i of exp(z_i.z_k / tau) ),
    z = g(f(x)) / |g(f(x))|

Paper: batch 4096, LARS, tau 0.1 (ImageNet), batch 512 and tau 0.5 (CIFAR-10, appendix B.9), MLP head with one hidden
layer. Both views go through the encoder in one forward pass, so BatchNorm sees 2N images, as in the reference code.
Loader: two views of the same recipe.
"""

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.info_nce import nt_xent
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.settings import Head, MethodSettings


class Settings(MethodSettings):
    """Settings of SimCLR."""

    recipe: str = "simclr"
    temperature: float = Field(0.5, gt=0)
    l2_normalize: bool = True
    head: Head = Head()


class SimCLR(Method[Settings]):
    """NT-Xent over the batch."""

    views = (View("first", recipe=0), View("second", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.head = heads.build(settings.head, self.encoder.dim)
        self.temperature = settings.temperature
        self.l2_normalize = settings.l2_normalize

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        projected = self.head(self.encoder(batch.joined()))
        if self.l2_normalize:
            projected = F.normalize(projected, dim=1)
        first, second = projected.chunk(2)
        loss, accuracy = nt_xent(first, second, self.temperature)
        return {"loss": loss, "accuracy": accuracy}
