"""Losses with a margin: pair-wise contrastive and triplet, each on squared distances or on distances.

d is the Euclidean distance; "squared" is common in self-supervised work, "distance" is the older papers' form. The two
differ: near the margin m the squared form pulls with a gradient of 2d, the other stops smoothly.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from miyagi.losses.pairs import in_fp32, mean_over, squared_distances

Form = Literal["squared", "distance"]


def _root(square: Tensor) -> Tensor:
    """d from d^2; the gradient at zero, which is infinite, becomes zero."""
    return square.clamp(min=1e-12).sqrt()


@in_fp32
def contrastive(
    query: Tensor,
    key: Tensor,
    negatives: Tensor,
    margin: float,
    *,
    form: Form = "squared",
    keep: Tensor | None = None,
) -> Tensor:
    """Pair-wise contrastive loss: positives are pulled together, negatives pushed to the margin m.

    squared:   L = d+^2 + mean over negatives of max(0, m - d-^2)
    distance:  L = d+^2 / 2 + mean over negatives of max(0, m - d-)^2 / 2   (Hadsell et al., CVPR 2006, equation 4)

    The mean over negatives, not their sum: the weight of the positive does not depend on their number.

    Args:
        query, key, negatives, keep: see losses/pairs.py.
        margin: m > 0; d^2 <= 4 and d <= 2 for vectors of unit length.
        form: on squared distances or on distances.

    Returns:
        The mean loss over the queries (scalar).
    """
    near, far = squared_distances(query, key, negatives)
    if form == "squared":
        return (near + mean_over(F.relu(margin - far), keep)).mean()
    return (near / 2 + mean_over(F.relu(margin - _root(far)).square(), keep) / 2).mean()


@in_fp32
def triplet(
    query: Tensor,
    key: Tensor,
    negatives: Tensor,
    margin: float,
    *,
    form: Form = "squared",
    keep: Tensor | None = None,
) -> Tensor:
    """Triplet loss: the positive should be nearer than each negative, by the margin m.

    squared:   L = mean over negatives of max(0, m + d+^2 - d-^2)   (FaceNet, Schroff et al., CVPR 2015, equation 3)
    distance:  L = mean over negatives of max(0, m + d+ - d-)       (Balntas et al., BMVC 2016)

    Args:
        query, key, negatives, keep: see losses/pairs.py.
        margin: m > 0.
        form: on squared distances or on distances.

    Returns:
        The mean loss over the queries (scalar).
    """
    near, far = squared_distances(query, key, negatives)
    if form == "distance":
        near, far = _root(near), _root(far)
    return mean_over(F.relu(margin + near[:, None] - far), keep).mean()
