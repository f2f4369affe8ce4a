"""Accuracy under attack: images that are changed by at most eps a pixel so that the classifier errs.

    FGSM (Goodfellow et al., ICLR 2015)   x' = clip(x + eps sign grad_x L(x, y))
    PGD  (Madry et al., ICLR 2018)        x_0 = x + U(-eps, eps),  x_(t+1) = clip_eps(x_t + alpha sign grad_x L(x_t, y))

with L the cross-entropy, the images in [0, 1], clip_eps the projection onto |x' - x| <= eps and onto [0, 1]. What is
attacked is the frozen encoder with logistic regression on its features of clean images, as in `corruptions`; the
attacker knows all of it and the true label. The random start comes from data/rng.py: equal settings, equal images.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from miyagi.data.rng import Key, uniform
from miyagi.protocols.base import Outcome
from miyagi.protocols.classifier import Probe
from miyagi.protocols.task import Task
from miyagi.settings import FinetuneSettings, Positive


class Settings(FinetuneSettings):
    """Settings of the attacks."""

    attacks: list[Literal["fgsm", "pgd"]] = Field(["fgsm", "pgd"], min_length=1)
    eps: list[Annotated[float, Field(gt=0, le=255)]] = Field(
        [1, 2, 4, 8], min_length=1, description="largest change of a value, in steps of 1/255"
    )
    steps: int = Field(10, ge=1, description="pgd")
    alpha: float = Field(0.25, gt=0, description="pgd: a step's length, as a share of eps")
    images: int = Field(1000, ge=1, description="how many images of each split, the first ones, are attacked")
    c: list[Positive] = Field(
        [0.001, 0.01, 0.1, 1.0], min_length=1, description="inverse regularisation, chosen on clean validation images"
    )


def evaluate(task: Task, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy on clean images and under each attack at each strength.

    Raises:
        UserError: the images are too small for the encoder.
    """
    probe = Probe.logistic(task, settings.c)
    model = as_network(probe, len(task.classes))
    attacks: dict[tuple[str, str], Attack] = {("none", "0"): lambda x, y, index: x}
    for name in settings.attacks:
        for eps in settings.eps:
            attacks[name, f"{eps:g}/255"] = _attack(model, name, eps / 255, settings, seed)
    return [
        Outcome(
            "encoder", split, "top1", _scores(task, model, attack, split, settings.images),
            probe.selection, probe.chosen, condition={"attack": name, "eps": eps},
        )
        for split in ("val", "test") for (name, eps), attack in attacks.items()
    ]  # fmt: skip


def as_network(probe: Probe, classes: int) -> nn.Sequential:
    """Images to logits (N x classes); a class without training images is never the answer."""
    assert probe.fitted.linear is not None
    weight, bias, known = (torch.from_numpy(part) for part in probe.fitted.linear)
    head = nn.Linear(weight.shape[1], classes).requires_grad_(False)
    head.weight.zero_()[known] = weight.float()
    head.bias.fill_(-1e4)[known] = bias.float()  # finite, so that there is a gradient for such a class too
    return nn.Sequential(probe.encoder, head.to(probe.encoder.mean.device)).requires_grad_(False)


Attack = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images N x 3 x H x W in [0, 1], labels N, indices N) -> the attacked images."""


def _attack(model: nn.Module, name: str, eps: float, settings: Settings, seed: int) -> Attack:
    if name == "fgsm":
        return lambda x, y, index: fgsm(model, x, y, eps)

    def start(x: Tensor, index: Tensor) -> Tensor:
        drawn = uniform(Key(seed, 0), "pgd", index, x[0].numel()).reshape(x.shape)
        return (x + eps * (2 * drawn - 1)).clamp(0, 1)

    return lambda x, y, index: pgd(model, x, y, eps, settings.alpha * eps, settings.steps, start(x, index))


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """One step of length eps along the gradient's sign; see the module's head for the formula."""
    return (x + eps * gradient(model, x, y).sign()).clamp(0, 1)


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int, start: Tensor) -> Tensor:
    """`steps` steps of length alpha, each projected back; see the module's head for the formula.

    Args:
        model: images to logits.
        x: N x 3 x H x W in [0, 1].
        y: N labels.
        eps: the largest change.
        alpha: a step's length.
        steps: how many.
        start: where the first step starts, within eps of `x`.
    """
    found = start
    for _ in range(steps):
        found = found + alpha * gradient(model, found, y).sign()
        found = torch.minimum(torch.maximum(found, x - eps), x + eps).clamp(0, 1)
    return found


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the summed cross-entropy with respect to the images."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return found


def _scores(task: Task, model: nn.Module, attack: Attack, split: str, images: int) -> NDArray[np.float64]:
    """0 or 100 for each of the first `images` of a split."""
    hits = []
    for raw in task.loader(split, limit=images)():
        raw = raw.to(task.device)
        x = (raw.image / 255).contiguous(memory_format=torch.channels_last)
        attacked = attack(x, raw.label, raw.index)
        with torch.inference_mode():
            hits.append((model(attacked).argmax(1) == raw.label).cpu().numpy())
    return 100.0 * np.concatenate(hits)
