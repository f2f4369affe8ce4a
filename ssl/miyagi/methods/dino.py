"""DINO (Caron et al., ICCV 2021): a student answers, for every crop, what a slow teacher answers for a large one.

    L = mean over the teacher's views t and the student's views s != t of -P_t . log P_s,
    P_s = softmax(s_theta / 0.1),  P_t = softmax((t_theta' - c) / tau_t),
    theta' <- m theta' + (1 - m) theta,  m from 0.996 to 1 by a cosine;  c <- 0.9 c + 0.1 mean of the teacher's outputs.

The output is K cosines with learned directions (a layer with weight normalisation of length 1) of an l2-normalised
bottleneck. Centring keeps one answer from winning always, a low tau_t keeps the answers from being all alike: entropy
(of the teacher, in nats) goes to log K or to 0 where one of them fails. The mean for c is over the images of all
processes and of all parts of an accumulated batch.
Paper: K 65,536, batch 1024, AdamW with learning rate 0.0005 batch / 256 and weight decay 0.04 to 0.4, 100 to 800
epochs, 10 of warm-up; tau_t rises from 0.04 to 0.07 over 30 epochs; the last layer does not move in the first epoch; 2
large and 8 small crops, of 224 and 96 pixels. Small data wants a smaller K. Two things differ: all crops have SwAV's
recipe, large from 0.14 of the image on (DINO's from 0.4, blurred and solarized as BYOL's); weight decay is constant.
Downstream keeps the teacher, which the paper finds better than the student all along. That takes thousands of steps:
with the default m, 62 % of a teacher of 234 steps is still what it was initialised with, and 4 % of one of 1,560.
BatchNorm: the crops of one size share a forward pass, as in the reference code; the head sees all crops together, and
has no BatchNorm by default. The teacher normalises by its own batches.
Loader: two large views, and small ones that are no smaller than the encoder's min_size.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from miyagi.data.batch import Batch, DataInfo
from miyagi.losses.self_distillation import cross_view_distillation
from miyagi.methods.base import Method
from miyagi.nn import heads
from miyagi.nn.ema import cosine_momentum, ema, frozen_copy
from miyagi.nn.encoders.base import Encoder
from miyagi.nn.gather import average_
from miyagi.nn.heads import Prototypes
from miyagi.nn.multi_crop import crops, encode
from miyagi.settings import Fraction, Head, MethodSettings

LARGE = 2
"""Views that the teacher sees."""


class Settings(MethodSettings):
    """Settings of DINO."""

    recipe: str = "multi_crop"
    momentum: Fraction = Field(0.996, description="m of the teacher at the first step; it rises to 1 by a cosine")
    student_temperature: float = Field(0.1, gt=0, description="tau_s")
    teacher_temperature: float = Field(0.07, gt=0, description="tau_t after its warm-up; below tau_s")
    warmup_temperature: float = Field(0.04, gt=0, description="tau_t in the first epoch")
    warmup_temperature_epochs: int = Field(30, ge=0, description="epochs over which tau_t rises; 0: at its end at once")
    center_momentum: Fraction = Field(0.9, description="momentum of the centre c; 1: no centring")
    frozen_epochs: int = Field(1, ge=0, description="first epochs, in which the last layer does not move")
    outputs: int = Field(65536, ge=2, description="K")
    head: Head = Head(width=2048, depth=2, out=256, activation="gelu")
    small: int = Field(8, ge=0, le=32, description="small crops an image")
    small_size: float = Field(96 / 224, gt=0, le=1, description="side of a small crop as a share of the image's")
    keep: Literal["teacher", "student"] = Field("teacher", description="what downstream is given")


class DINO(Method[Settings]):
    """A student of all crops, a teacher of the large ones."""

    center: Tensor

    def setup(self, settings: Settings, info: DataInfo) -> None:
        self.settings = settings
        self.views = crops(self.encoder, info.size, LARGE, settings.small, settings.small_size)
        self.head = heads.build(settings.head, self.encoder.dim)
        self.last = Prototypes(heads.out_width(settings.head, self.encoder.dim), settings.outputs)
        self.teacher_encoder = frozen_copy(self.encoder)
        self.teacher_head = frozen_copy(self.head)
        self.teacher_last = frozen_copy(self.last)
        self.register_buffer("center", torch.zeros(settings.outputs))
        self._epoch = 0
        self._pending: list[Tensor] = []

    def downstream(self) -> tuple[Encoder, nn.Module]:
        return (self.teacher_encoder, self.teacher_head) if self.settings.keep == "teacher" else super().downstream()

    def before_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        self._epoch = epoch

    @property
    def teacher_temperature(self) -> float:
        """tau_t in this epoch."""
        s = self.settings
        share = min(1.0, self._epoch / max(1, s.warmup_temperature_epochs - 1)) if s.warmup_temperature_epochs else 1.0
        return s.warmup_temperature + share * (s.teacher_temperature - s.warmup_temperature)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        n, s = len(batch), self.settings
        student = self.last(self.head(encode(self.encoder, batch.views))).unflatten(0, (-1, n))
        with torch.no_grad():
            features = self.teacher_head(encode(self.teacher_encoder, batch.views[:LARGE]))
            teacher = self.teacher_last(features).float().unflatten(0, (-1, n))
        self._pending.append(teacher.mean((0, 1)))
        found = cross_view_distillation(student, teacher, self.center, s.student_temperature, self.teacher_temperature)
        return found._asdict()

    def after_backward(self, progress: float) -> None:
        if self._epoch < self.settings.frozen_epochs:
            self.last.weight.grad = None  # the optimiser passes over it, weight decay and all

    def after_step(self, progress: float) -> None:
        teacher = nn.ModuleList([self.teacher_encoder, self.teacher_head, self.teacher_last])
        student = nn.ModuleList([self.encoder, self.head, self.last])
        ema(teacher, student, cosine_momentum(self.settings.momentum, progress))
        mean = torch.stack(self._pending).mean(0)
        average_([mean])
        self.center.lerp_(mean, 1 - self.settings.center_momentum)
        self._pending.clear()
