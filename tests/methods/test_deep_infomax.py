import math

import numpy as np
import pytest
import torch

from miyagi.errors import UserError
from miyagi.losses.info_nce import info_nce
from miyagi.methods.deep_infomax import DeepInfoMax, Settings, estimate
from miyagi.recipes import RECIPES
from miyagi.settings import Head

RECIPE = RECIPES["none"].views
ESTIMATORS = ("info_nce", "jsd", "dv")


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def make(encoder, info):
    def method(**settings):
        torch.manual_seed(1)
        return DeepInfoMax(Settings(width=32, head=Head(width=32, out=16), **settings), encoder, info)

    return method


@pytest.fixture
def scored():
    """Vectors, four places of each image, and which places are another image's."""
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.randn(5, 8, generator=generator), torch.randn(5, 4, 8, generator=generator)
    image = torch.arange(5).repeat_interleave(4)
    return query, keys, keys.flatten(0, 1), torch.arange(5)[:, None] != image


def test_info_nce_of_each_place_against_the_places_of_other_images(scored):
    query, keys, others, keep = scored
    found = estimate(query, keys, others, keep, "info_nce", 0.5)
    want, accuracy = info_nce(
        query.repeat_interleave(4, 0), keys.flatten(0, 1), others, 0.5, keep=keep.repeat_interleave(4, 0)
    )
    torch.testing.assert_close(found["loss"], want)
    assert found["accuracy"] == accuracy
    torch.testing.assert_close(found["mi_bound"], math.log(17) - want)


def test_jsd_and_dv_by_numpy(scored):
    query, keys, others, keep = scored
    positive = np.einsum("nd,npd->np", query.double().numpy(), keys.double().numpy()) / 2
    negative = (query.double().numpy() @ others.double().numpy().T / 2)[keep.numpy()]
    assert len(negative) == 5 * 16
    jsd, dv = (estimate(query, keys, others, keep, name, 2.0) for name in ("jsd", "dv"))
    want = np.log1p(np.exp(-positive)).mean() + np.log1p(np.exp(negative)).mean()
    assert float(jsd["loss"]) == pytest.approx(want, rel=1e-5)
    assert "mi_bound" not in jsd
    assert float(dv["loss"]) == pytest.approx(np.log(np.exp(negative).mean()) - positive.mean(), rel=1e-5)
    assert float(dv["mi_bound"]) == -float(dv["loss"])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_collapsed_network_finds_no_place(scored, estimator):
    *_, keep = scored
    query, keys = torch.ones(5, 8), torch.ones(5, 4, 8)
    assert estimate(query, keys, keys.flatten(0, 1), keep, estimator, 1.0)["accuracy"] == 0


def test_the_map_and_the_vector_are_of_one_pass(make, make_batch):
    method, calls = make(alpha=0.5).eval(), []
    assert method.layer == "conv3" and method.grid == 4
    method.encoder.blocks["conv1"].register_forward_hook(lambda *_: calls.append(1))
    batch, seen = make_batch(method, RECIPE, n=6), []
    method.term = lambda batch, query, keys: seen.append((query, keys)) or {"loss": query.sum() * 0}
    with torch.no_grad():
        method(batch, 0.0)
        maps = method.encoder.maps(batch.views[0])
        y = method.head(method.encoder(batch.views[0]))
    assert len(calls) == 3  # one of the method's, two of ours
    (query, local), (again, whole) = seen
    assert torch.equal(query, y) and torch.equal(again, y)
    assert local.shape == (6, 16, 16) and whole.shape == (6, 1, 16)
    place = maps["conv3"][2, :, 1, 3]
    want = method.local[2](torch.relu(method.local[0](place[:, None, None])))[:, 0, 0]
    torch.testing.assert_close(local[2, 1 * 4 + 3], want, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole[:, 0], method.whole(maps["conv3"].flatten(1)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_loss_is_the_weighted_sum_of_its_terms(make, make_batch, estimator):
    parts = {}
    for alpha, beta in ((1.0, 0.0), (0.0, 1.0), (0.3, 2.0)):
        method = make(alpha=1.0, beta=1.0, estimator=estimator).eval()
        method.settings = Settings(alpha=alpha, beta=beta, estimator=estimator)
        with torch.no_grad():
            parts[alpha, beta] = float(method(make_batch(method, RECIPE, n=8), 0.0)["loss"])
    assert parts[0.3, 2.0] == pytest.approx(0.3 * parts[1.0, 0.0] + 2 * parts[0.0, 1.0], rel=1e-5)


@pytest.mark.parametrize("places", [1, 16])
def test_negatives_are_so_many_other_images(make, make_batch, monkeypatch, places):
    from miyagi.methods import deep_infomax

    method, seen = make(number=3), []
    monkeypatch.setattr(deep_infomax, "estimate", lambda *args: seen.append(args))
    batch = make_batch(method, RECIPE, n=8)
    keys = torch.arange(8.0)[:, None, None].expand(8, places, 16)
    method.term(batch, torch.zeros(8, 16), keys)
    _, _, others, keep, *_ = seen[0]
    assert others.shape == (8 * places, 16)
    for image in range(8):
        images = others[keep[image], 0].tolist()
        assert len(images) == 3 * places and len(set(images)) == 3 and image not in images


@pytest.mark.parametrize(
    ("alpha", "beta", "without"), [(0.0, 1.0, "whole"), (1.0, 0.0, "local"), (0.5, 1.0, "nothing")]
)
def test_the_gradient_reaches_everything(make, make_batch, alpha, beta, without):
    method = make(alpha=alpha, beta=beta)
    method(make_batch(method, RECIPE, n=8), 0.0)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
    assert not any(name.startswith(without) for name, _ in method.named_parameters())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_shuffled_positives_are_worse(make, fit, estimator):
    """Maps of other images than the vectors."""
    method = make(estimator=estimator)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, RECIPE, steps=40, n=32)
    method.load_state_dict(state)
    method.local.register_forward_hook(lambda module, inputs, output: output[torch.randperm(len(output))])
    assert true < fit(method, RECIPE, steps=40, n=32) - 0.05


def test_a_layer_by_name(make):
    assert make(layer="conv2").layer == "conv2"
    with pytest.raises(UserError, match=r"deep_infomax: the encoder has no layer 'conv5'; .*conv"):
        make(layer="conv5")


def test_nothing_left_to_learn():
    with pytest.raises(ValueError, match="alpha and beta are both 0"):
        Settings(beta=0.0)
