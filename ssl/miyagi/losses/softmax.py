"""Instance discrimination as classification: each image is its own class, with or without weights of its own.

The non-parametric form compares features with features, so it has no weights to learn, and new images need none
(Wu et al., CVPR 2018, equations 1 and 2).
"""

from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import in_fp32


@in_fp32
def parametric_softmax(features: Tensor, weight: Tensor, label: Tensor, bias: Tensor | None = None) -> Tensor:
    """L = -log( exp(w_y.v + b_y) / sum_c exp(w_c.v + b_c) )  (Dosovitskiy et al. 2014; Wu et al. 2018, equation 1).

    Args:
        features: v, N x D.
        weight: w, C x D, one row a class.
        label: y, N, int64, in [0, C).
        bias: b, C, or None.

    Returns:
        The mean loss (scalar).
    """
    return F.cross_entropy(F.linear(features, weight, bias), label)


@in_fp32
def non_parametric_softmax(features: Tensor, bank: Tensor, index: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """L = -log( exp(f_i.v / tau) / sum_j exp(f_j.v / tau) ), over all n images (Wu et al. 2018, equation 2).

    Args:
        features: v, N x D, of unit length in the paper.
        bank: f, n x D, one feature an image, of unit length in the paper.
        index: i, N, int64: which image each feature is of.
        temperature: tau > 0 (paper: 0.07).

    Returns:
        The mean loss (scalar), and the share of features whose own image is nearest (scalar, no gradient).
    """
    logits = features @ bank.T / temperature
    return F.cross_entropy(logits, index), (logits.argmax(1) == index).float().mean().detach()
