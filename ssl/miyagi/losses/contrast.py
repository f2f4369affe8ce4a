"""One contrastive loss by its name, for methods that let the user choose: `loss: info_nce | margin | jsd | ...`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from miyagi.losses.info_nce import LOWEST, info_nce
from miyagi.losses.margin import contrastive, triplet
from miyagi.losses.mutual_information import dv, jsd, mutual_information_bound
from miyagi.losses.n_pair import n_pair
from miyagi.losses.nce import log_partition, nce
from miyagi.losses.pairs import count, in_fp32, similarities
from miyagi.settings import ContrastiveSettings

Gather = Callable[[Tensor], Tensor]
"""What all processes hold, with gradient (nn/gather.py)."""


class Partition(Protocol):
    """What fixes the constant of NCE (nn/partition.py)."""

    n: int

    def __call__(self, estimate: Tensor, /) -> Tensor:
        """log Z, given one more estimate of it."""


@dataclass(frozen=True)
class Pairs:
    """Queries with their positives and negatives; shapes: see losses/pairs.py."""

    query: Tensor
    key: Tensor
    negatives: Tensor
    keep: Tensor | None
    partition: Partition
    gather: Gather

    def scores(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Similarities over tau: with the positives (N), and with the negatives that are kept (flat)."""
        positive, negative = similarities(self.query, self.key, self.negatives)
        return positive / temperature, (negative if self.keep is None else negative[self.keep]) / temperature


def _info_nce(p: Pairs, s: ContrastiveSettings) -> Tensor:
    return info_nce(p.query, p.key, p.negatives, s.temperature, keep=p.keep, beta=s.beta, tau_plus=s.tau_plus)[0]


def _nce(p: Pairs, s: ContrastiveSettings) -> Tensor:
    n = p.partition.n
    log_z = p.partition(log_partition(p.query, p.negatives, s.temperature, n=n, keep=p.keep))
    return nce(p.query, p.key, p.negatives, s.temperature, n=n, log_z=log_z, keep=p.keep)


LOSSES: dict[str, Callable[[Pairs, ContrastiveSettings], Tensor]] = {
    "info_nce": _info_nce,
    "nce": _nce,
    "n_pair": lambda p, s: n_pair(p.query, p.key, p.negatives, keep=p.keep),
    "margin": lambda p, s: contrastive(p.query, p.key, p.negatives, s.margin, form=s.form, keep=p.keep),
    "triplet": lambda p, s: triplet(p.query, p.key, p.negatives, s.margin, form=s.form, keep=p.keep),
    "jsd": lambda p, s: jsd(*p.scores(s.temperature)),
    "dv": lambda p, s: dv(*p.scores(s.temperature), p.gather),
}


@in_fp32
def contrast(
    query: Tensor,
    key: Tensor,
    negatives: Tensor,
    keep: Tensor | None,
    settings: ContrastiveSettings,
    part: Partition,
    gather: Gather,
) -> dict[str, Tensor]:
    """The loss that `settings.loss` names, and what should be logged beside it.

    Args:
        query: N x D.
        key: N x D, the positive of each query.
        negatives: K x D or N x K x D.
        keep: N x K, which negatives a query may use, or None.
        settings: the loss and its parameters.
        part: the constant of NCE; the other losses ignore it.
        gather: of `dv`, whose logarithm is of the mean over all processes; the other losses ignore it.

    Returns:
        loss (scalar); accuracy: the share of queries whose positive has a larger dot product than all negatives;
        mi_bound, in nats, where one holds: InfoNCE and N-pair with unweighted negatives of the batch, and
        Donsker-Varadhan with them.
    """
    loss = LOSSES[settings.loss](Pairs(query, key, negatives, keep, part, gather), settings)
    with torch.no_grad():
        positive, negative = similarities(query, key, negatives)
        number = count(negative, keep)
        if keep is not None:
            negative = negative.masked_fill(~keep, LOWEST)
        found = {"loss": loss, "accuracy": (positive > negative.amax(1)).float().mean()}
        if settings.negatives == "batch" and settings.beta == settings.tau_plus == 0:
            if settings.loss in ("info_nce", "n_pair"):
                found["mi_bound"] = mutual_information_bound(loss, number + 1).mean()
            elif settings.loss == "dv":
                found["mi_bound"] = -loss.detach()
    return found
