"""SimCLR (Chen et al., ICML 2020): two views of an image agree, all other views of the batch are pushed away.

    L = mean over the 2N views of -log( exp(z_i.z_j / tau) / sum over k != i of exp(z_i.z_k / tau) ),
    z = g(f(x)) / |g(f(x))|

Paper: batch 4096, LARS, tau 0.1 (ImageNet), batch 512 and tau 0.5 (CIFAR-10, appendix B.9), MLP head with one hidden
layer. Both views go through the encoder in one forward pass, so BatchNorm sees 2N images, as in the reference code.
The loss, where its negatives come from, how many they are and how much the hard ones weigh are settings; those of a
bank or a queue are earlier outputs of the encoder itself, which ages fast: that is what MoCo's key encoder is for.
N is what is worked on at a time: the images of all processes, of one of `pretrain.accumulate` parts of a batch. Each
process computes the loss of its own anchors among the views of all.
Loader: two views of the same recipe.
"""

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.losses.contrast import contrast
from miyagi.methods.base import Method
from miyagi.nn import heads, negatives
from miyagi.nn.gather import gather
from miyagi.nn.partition import Partition
from miyagi.settings import ContrastiveSettings, Head


class Settings(ContrastiveSettings):
    """Settings of SimCLR."""

    recipe: str = "simclr"
    temperature: float = Field(0.5, gt=0, description="tau: 0.07 to 0.5 with l2_normalize, 10 to 100 without")
    head: Head = Head()


class SimCLR(Method[Settings]):
    """Both views are queries, and each other's keys."""

    views = (View("first", recipe=0), View("second", recipe=1))

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.head = heads.build(settings.head, self.encoder.dim)
        self.negatives = negatives.build(settings, info.n, heads.out_width(settings.head, self.encoder.dim))
        self.partition = Partition(info.n)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        projected = self.head(self.encoder(batch.joined())).float()
        if self.settings.l2_normalize:
            projected = F.normalize(projected, dim=1)
        candidates, keep = self.negatives(batch.key, batch.index, projected)
        self._pending.append((batch.index, projected.detach()))
        other = projected.roll(len(batch), 0)
        return contrast(projected, other, candidates, keep, self.settings, self.partition, gather)

    def after_step(self, progress: float) -> None:
        for index, keys in self._pending:
            self.negatives.update(index, keys)
        self._pending.clear()
