"""Every loss, in every precision and at extreme temperatures: computed in fp32, finite, with a finite gradient."""

import pytest
import torch
from torch.nn.functional import normalize

from miyagi.losses.info_nce import info_nce, nt_xent
from miyagi.losses.margin import contrastive, triplet
from miyagi.losses.mutual_information import dv, jsd
from miyagi.losses.n_pair import n_pair
from miyagi.losses.nce import log_partition, nce
from miyagi.losses.softmax import non_parametric_softmax, parametric_softmax


def _nce(q, k, n, tau):
    return nce(q, k, n, tau, n=50, log_z=log_partition(q, n, tau, n=50))


def _scores(loss):
    return lambda q, k, n, tau: loss((q * k).sum(1) / tau, q @ n.T / tau)


INDEX = torch.arange(8)
LOSSES = {
    "info_nce": lambda q, k, n, tau: info_nce(q, k, n, tau)[0],
    "info_nce_own": lambda q, k, n, tau: info_nce(q, k, n[INDEX[:, None].expand(8, 3)], tau)[0],
    "hard": lambda q, k, n, tau: info_nce(q, k, n, tau, beta=1.0)[0],
    "debiased": lambda q, k, n, tau: info_nce(q, k, n, tau, tau_plus=0.1)[0],
    "hard_debiased": lambda q, k, n, tau: info_nce(q, k, n, tau, beta=2.0, tau_plus=0.3)[0],
    "nt_xent": lambda q, k, n, tau: nt_xent(q, k, tau)[0],
    "nce": _nce,
    "n_pair": lambda q, k, n, tau: n_pair(q / tau, k, n),
    "margin": lambda q, k, n, tau: contrastive(q, k, n, tau),
    "margin_distance": lambda q, k, n, tau: contrastive(q, k, n, tau, form="distance"),
    "triplet": lambda q, k, n, tau: triplet(q, k, n, tau),
    "triplet_distance": lambda q, k, n, tau: triplet(q, k, n, tau, form="distance"),
    "softmax": lambda q, k, n, tau: parametric_softmax(q, k / tau, INDEX),
    "non_parametric_softmax": lambda q, k, n, tau: non_parametric_softmax(q, k, INDEX, tau)[0],
    "jsd": _scores(jsd),
    "dv": _scores(dv),
}
TEMPERATURES = [1e-3, 0.07, 1.0, 100.0]


def vectors(dtype=torch.float32, scale=1.0):
    torch.manual_seed(0)
    return [(scale * normalize(torch.randn(8, 16), dim=1)).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_finite(name, dtype, temperature):
    inputs = vectors(dtype)
    loss = LOSSES[name](*inputs, temperature)
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    loss.backward()
    for x in inputs:
        if x.grad is not None:
            assert x.grad.dtype == dtype and torch.isfinite(x.grad).all()
    assert inputs[0].grad.abs().sum() > 0 or loss < 1e-6 or "margin" in name or "triplet" in name


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("debiased", "hard_debiased")])
def test_finite_without_l2(name):
    """tau 0.001 on vectors of length 30: logits of a million."""
    inputs = vectors(scale=30.0)
    loss = LOSSES[name](*inputs, 1e-3)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(inputs[0].grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("jsd", "dv", "n_pair", "softmax")])
def test_half_precision_is_computed_in_fp32(name, dtype):
    """Bit for bit what fp32 makes of the same rounded numbers, also under autocast."""
    half = vectors(dtype)
    want = LOSSES[name](*[x.detach().float() for x in half], 0.07)
    assert torch.equal(LOSSES[name](*half, 0.07), want)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LOSSES[name](*half, 0.07), want)
        assert torch.equal(LOSSES[name](*[x.float() for x in half], 0.07), want)


def test_doubles_stay_doubles():
    q, k, n = (x.detach().double() for x in vectors())
    assert info_nce(q, k, n, 0.1)[0].dtype == torch.float64


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name):
    """Against finite differences, in double precision."""
    inputs = [x.detach().double().requires_grad_() for x in vectors()]
    if name == "nce":  # Z is a constant
        z = log_partition(inputs[0], inputs[2], 0.3, n=50)
        assert torch.autograd.gradcheck(lambda q, k, n: nce(q, k, n, 0.3, n=50, log_z=z), inputs)
    else:
        assert torch.autograd.gradcheck(lambda q, k, n: LOSSES[name](q, k, n, 0.3) + 0 * (k + n).sum(), inputs)
