"""BoWNet (Gidaris et al., CVPR 2020): which visual words does this image hold, seen from a perturbed copy?

Two phases. For the first `teacher` share of the training the encoder learns rotations (Gidaris et al., ICLR 2018). Then
it becomes the teacher and is frozen; k-means on the vectors of its feature map (`layer`) gives `words` centroids, once;
and an encoder as it was initialised, the student f, starts afresh. Of an image x the teacher gives the histogram

    y(x)_k ~ number of places u of the map whose nearest word is k   (counts), or 1 if there is one (binary),

scaled to a sum of 1, and the student must answer it from a perturbed copy x~:

    L = - mean over x of sum over k of y(x)_k log softmax(gamma W f(x~))_k,

with rows of W of length 1 and a learned gamma. Words (paper: 2048 on CIFAR-100, up to 20,000) are the problem's
complexity. Paper: counts on CIFAR-100, binary on ImageNet; crops, colour jitter, grey and, on CIFAR-100, CutMix, which
is left out here; SGD, 200 epochs after those of the teacher, with a schedule of their own. Here both phases share one
schedule, and the optimiser's running means go on from the teacher to the student for a few steps.

Accuracy: the share of rotations that the teacher finds; then of images whose likeliest word, by the student, they hold.

Both phases share one classifier (4 rows for rotations, then the words'), initialised anew between them. Which phase it
is, the teacher and the words are in buffers and survive a resume; with several processes each finds the same words. A
training of one epoch, and one that ends before its share is over, never gets to the student.
Loader: two views, the image and the perturbed one.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.batch import Batch, DataInfo, View
from miyagi.data.rng import bits, fold
from miyagi.methods.base import Method
from miyagi.nn.clusters import in_order, kmeans, layer_of_words, nearest
from miyagi.nn.ema import frozen_copy
from miyagi.nn.gather import world_size
from miyagi.settings import MethodSettings, Name

TURNS = 4


class Settings(MethodSettings):
    """Settings of BoWNet."""

    recipe: str = "bownet"
    words: int = Field(2048, ge=2, le=65536, description="k, of k-means on the teacher's vectors")
    teacher: float = Field(0.5, gt=0, lt=1, description="share of the training that is the teacher's")
    layer: Name | None = Field(None, description="whose map has the words; null: the last with 16 places or more")
    histogram: Literal["counts", "binary"] = "counts"
    images: int = Field(10000, ge=1, description="about as many images' vectors are clustered")


class Answers(nn.Module):
    """gamma W f, with the rows of W scaled to length 1."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight, self.gamma = nn.Parameter(torch.empty(classes, width)), nn.Parameter(torch.empty(1))
        self.reset()

    def reset(self) -> None:
        """Start afresh, with rows about as long as 1: the longer they are, the less a step turns them."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)
        nn.init.ones_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight, dim=1)) * self.gamma


class BoWNet(Method[Settings]):
    """Rotations first; then the words that the network of the rotations sees."""

    views = (View("image", recipe=0), View("perturbed", recipe=1))
    words: Tensor
    student: Tensor
    steps: Tensor
    done: Tensor

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        # Until the phases change, it keeps what the student starts from.
        self.teacher = frozen_copy(self.encoder).eval()
        self.layer, width = layer_of_words(self.encoder, info.size, settings.layer, "bownet: layer")
        self.head = nn.Sequential(Answers(self.encoder.dim, TURNS + settings.words))
        self.register_buffer("words", torch.zeros(settings.words, width))
        self.register_buffer("student", torch.tensor(0))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("done", torch.tensor(0.0, dtype=torch.float64))

    def train(self, mode: bool = True) -> "BoWNet":
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def before_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        if self.student or self.done < self.settings.teacher - 1e-9:
            return
        for ours, theirs in zip(self.encoder.state_dict().values(), self.teacher.state_dict().values(), strict=True):
            kept = ours.clone()
            ours.copy_(theirs)
            theirs.copy_(kept)
        answers = self.head[0]
        assert isinstance(answers, Answers)
        answers.reset()
        self.student.fill_(1)
        index, vectors, seed = [], [], 0
        for batch in batches:
            index.append(batch.index)
            vectors.append(self.vectors(batch))
            seed = fold(*batch.key, "bownet/kmeans")
            if world_size() * sum(map(len, index)) >= self.settings.images:
                break
        _, found = in_order(torch.cat(index), torch.cat(vectors))
        centroids = kmeans(found.reshape(-1, found.shape[2]), len(self.words), seed, "bownet: words", batches=True)
        self.words.copy_(torch.from_numpy(centroids))

    def after_step(self, progress: float) -> None:
        """The share of the training that is done after this step; `progress` is what was done before it."""
        self.steps += 1
        self.done.fill_(progress * int(self.steps) / max(int(self.steps) - 1, 1))

    @torch.no_grad()
    def vectors(self, batch: Batch) -> Tensor:
        """The teacher's map of each image, place by place: N x places x C."""
        found: Tensor = self.teacher.maps(batch.views[0], [self.layer])[self.layer]
        return found.flatten(2).transpose(1, 2).float()

    def target(self, batch: Batch) -> Tensor:
        """y, N x words."""
        word = nearest(self.vectors(batch), self.words)
        counts = self.words.new_zeros(len(word), len(self.words))
        counts.scatter_add_(1, word, torch.ones_like(word, dtype=counts.dtype))
        if self.settings.histogram == "binary":
            counts = (counts > 0).to(counts.dtype)
        return counts / counts.sum(1, keepdim=True)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        if self.student:
            target, scores = self.target(batch), self.scores(batch.views[1])
            found = target.gather(1, scores.argmax(1, keepdim=True)) > 0
            return {"loss": -(target * scores.log_softmax(1)).sum(1).mean(), "accuracy": found.float().mean()}
        x = torch.cat([torch.rot90(batch.views[0], turn, (2, 3)) for turn in range(TURNS)])
        logits = self.head(self.encoder(x.contiguous(memory_format=torch.channels_last)))[:, :TURNS].float()
        turns = torch.arange(TURNS, device=x.device).repeat_interleave(len(batch))
        accuracy = (logits.detach().argmax(1) == turns).float().mean()
        return {"loss": F.cross_entropy(logits, turns), "accuracy": accuracy}

    def scores(self, x: Tensor) -> Tensor:
        """The student's answers, N x words."""
        answers: Tensor = self.head(self.encoder(x))[:, TURNS:].float()
        return answers

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Each place in the colour of its word; then only those whose word is among the student's likeliest."""
        images, perturbed = batch.views
        if not self.student:
            drawn = (bits(batch.key, "bownet/show", batch.index, 1)[:, 0] % TURNS).tolist()
            pairs = zip(images, drawn, strict=True)
            return {"image": images, "turned": torch.stack([torch.rot90(image, turn, (1, 2)) for image, turn in pairs])}
        word = nearest(self.vectors(batch), self.words)
        rank = self.scores(perturbed).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        distinct = (self.target(batch) > 0).sum(1, keepdim=True)  # as many guesses as there are words in the image
        hit = (rank.gather(1, word) < distinct)[:, None].float()
        side = round(word.shape[1] ** 0.5)
        hue = word[:, None] * torch.tensor([0.618034, 0.414214, 0.732051], device=word.device)[:, None] % 1
        colors = {"words": hue, "words found": hue * hit + (1 - hit)}
        tiles = {name: F.interpolate(c.unflatten(2, (side, side)), size=images.shape[2:]) for name, c in colors.items()}
        return {"image": images, "perturbed": perturbed, **tiles}
