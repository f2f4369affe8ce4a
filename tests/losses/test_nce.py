import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy, normalize

from miyagi.losses.nce import log_partition, nce


def unit(*shape):
    return normalize(torch.randn(*shape), dim=-1)


def test_by_hand():
    # n = 4 images, m = 2 samples, Z = 1, tau 1: P = e at the own image, 1 and 1 / e at the samples; m / n = 1/2.
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    samples = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    h = [p / (p + 0.5) for p in (math.e, 1.0, 1 / math.e)]
    want = -math.log(h[0]) - math.log(1 - h[1]) - math.log(1 - h[2])
    assert float(nce(query, key, samples, 1.0, n=4, log_z=0.0)) == pytest.approx(want, rel=1e-6)


def test_against_binary_cross_entropy():
    torch.manual_seed(0)
    query, key, samples = unit(6, 5), unit(6, 5), unit(6, 9, 5)
    z, n, tau = 137.0, 50, 0.2
    p = torch.cat([(query * key).sum(1, keepdim=True), torch.einsum("nd,nkd->nk", query, samples)], 1).double()
    p = (p / tau).exp() / z
    truth = torch.zeros_like(p)
    truth[:, 0] = 1
    want = binary_cross_entropy(p / (p + 9 / n), truth, reduction="none").sum(1).mean()
    assert float(nce(query, key, samples, tau, n=n, log_z=math.log(z))) == pytest.approx(float(want), rel=1e-5)


def test_only_what_is_kept():
    torch.manual_seed(0)
    query, key, pool = unit(5, 4), unit(5, 4), unit(9, 4)
    chosen = torch.stack([torch.randperm(9)[:3] for _ in range(5)])
    keep = torch.zeros(5, 9, dtype=torch.bool).scatter_(1, chosen, True)
    how = {"n": 30, "log_z": 2.0}
    torch.testing.assert_close(nce(query, key, pool[chosen], 0.2, **how), nce(query, key, pool, 0.2, keep=keep, **how))
    torch.testing.assert_close(
        log_partition(query, pool[chosen], 0.2, n=30), log_partition(query, pool, 0.2, n=30, keep=keep)
    )


def test_the_partition():
    torch.manual_seed(0)
    query, bank = unit(6, 5), unit(40, 5)
    want = np.log(100 * np.exp((query.double() @ bank.double().T).numpy() / 0.07).mean())
    assert float(log_partition(query, bank, 0.07, n=100)) == pytest.approx(want, rel=1e-5)


def test_with_all_images_and_the_true_z_it_is_softmaxs_own_noise_level():
    """P of the bank's own images sums to one, so with Z as measured the noise is as likely as an average image."""
    torch.manual_seed(0)
    query, bank = unit(1, 5), unit(40, 5)
    z = log_partition(query, bank, 0.5, n=40)
    assert float(((query @ bank.T) / 0.5 - z).exp().sum()) == pytest.approx(1, rel=1e-5)


def test_negatives_move():
    """Gradient steps on the negatives take them away from the query; -log(exp(q.k) / Z) with Z held leaves them."""
    torch.manual_seed(0)
    query, key, start = unit(4, 8), unit(4, 8), unit(16, 8)
    z = log_partition(query, start, 0.1, n=16)

    def descend(loss):
        negatives = start.clone().requires_grad_()
        value = loss(negatives)
        if value.requires_grad:
            value.backward()
        moved = start if negatives.grad is None else start - 0.01 * negatives.grad
        return float((query @ moved.T - query @ start.T).mean())

    assert descend(lambda negatives: nce(query, key, negatives, 0.1, n=16, log_z=z)) < -1e-3
    assert descend(lambda negatives: (z - (query * key).sum(1) / 0.1).mean()) == 0


def test_trained_negatives_leave_the_queries():
    torch.manual_seed(0)
    query, negatives = unit(6, 8).requires_grad_(), unit(6, 8).requires_grad_()
    optimiser = torch.optim.SGD([query, negatives], 0.05)
    none, found = torch.zeros(6, 8), []
    for _ in range(101):
        optimiser.zero_grad()
        q, n = normalize(query, dim=1), normalize(negatives, dim=1)
        found.append(float((q @ n.T).detach().mean()))
        nce(q, none, n, 0.2, n=12, log_z=4.0).backward()
        optimiser.step()
    assert found[100] < found[50] < found[0] - 0.1
