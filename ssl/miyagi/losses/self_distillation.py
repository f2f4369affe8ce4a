"""How far a network's prediction is from what another network, which takes no gradient, makes of another view."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import in_fp32


@in_fp32
def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """D(p, z) = -mean of p.z / (|p| |z|), and no gradient for z (SimSiam, Chen and He, CVPR 2021, equation 1).

    Args:
        prediction: p, N x D.
        target: z, N x D.

    Returns:
        A scalar in [-1, 1].
    """
    return -F.cosine_similarity(prediction, target.detach(), dim=1).mean()


@in_fp32
def normalized_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of | p/|p| - z/|z| |^2 = 2 - 2 cos(p, z), and no gradient for z (BYOL, Grill et al. 2020, equation 2).

    Args:
        prediction: p, N x D.
        target: z, N x D.

    Returns:
        A scalar in [0, 4].
    """
    return 2 + 2 * negative_cosine(prediction, target)


@in_fp32
@torch.no_grad()
def normalized_std(x: Tensor) -> Tensor:
    """sqrt(D) times the mean standard deviation of x/|x| (N x D) over the batch: SimSiam's sign of collapse, figure 2.

    Returns:
        A scalar: about 1 for directions spread evenly, 0 where all are the same.
    """
    return F.normalize(x, dim=1).std(0).mean() * math.sqrt(x.shape[1])


class Distillation(NamedTuple):
    """DINO's loss, and the mean entropy of the teacher's answers, in nats (scalars)."""

    loss: Tensor
    entropy: Tensor


@in_fp32
def cross_view_distillation(
    student: Tensor, teacher: Tensor, center: Tensor, student_temperature: float, teacher_temperature: float
) -> Distillation:
    """The mean of H(P_t, P_s) over the teacher's views t and the student's other views s (DINO, Caron et al. 2021).

        P_t = softmax((teacher_t - c) / tau_t), without gradient;  P_s = softmax(student_s / tau_s);  H = -P_t log P_s.

    Args:
        student: S x N x K, S views of N images; the first T of them are the teacher's.
        teacher: T x N x K, T >= 1 and S >= 2.
        center: c, of K.
        student_temperature: tau_s > 0.
        teacher_temperature: tau_t > 0, the smaller one: it sharpens, against the uniform answer.
    """
    log_target = F.log_softmax((teacher.detach() - center) / teacher_temperature, dim=2)
    target, log_answer = log_target.exp(), F.log_softmax(student / student_temperature, dim=2)
    losses = [
        -(target[t] * log_answer[s]).sum(1).mean() for t in range(len(teacher)) for s in range(len(student)) if s != t
    ]
    return Distillation(torch.stack(losses).mean(), -(target * log_target).sum(2).mean())
