import math
from dataclasses import replace

import pytest
import torch

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods.cpc import CPC, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import Head

RECIPE = RECIPES["none"].views
COARSE = {"patch": 0.5, "steps": 2, "skip": 0, "width": 32, "layers": 2}


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def make(encoder, info):
    def method(**settings):
        torch.manual_seed(1)
        return CPC(Settings(**{"width": 32, "head": Head(kind="linear", out=32)} | settings), encoder, info)

    return method


@pytest.mark.parametrize(("size", "side", "stride", "grid"), [(32, 8, 4, 7), (28, 7, 4, 6), (256, 64, 32, 7)])
def test_the_grid_of_overlapping_patches(encoder, size, side, stride, grid):
    method = CPC(Settings(), encoder, DataInfo(n=8, classes=2, size=size, mean=(0.5,) * 3, std=(0.3,) * 3))
    assert (method.side, method.stride, method.grid) == (side, stride, grid)
    row, column = torch.meshgrid(torch.arange(size) * 1.0, torch.arange(size) * 1.0, indexing="ij")
    patches = method.patches(torch.stack([row, column, row]).expand(2, -1, -1, -1))
    assert patches.shape == (2, grid**2, 3, side, side)
    margin = (size - side - stride * (grid - 1)) // 2
    for r in range(grid):
        for c in range(grid):
            first = patches[1, r * grid + c, :2, 0, 0].tolist()
            assert first == [margin + stride * r, margin + stride * c]


def test_rows_below_do_not_change_the_context(make, make_batch):
    method = make(layers=3).eval()
    x = make_batch(method, RECIPE, n=2).views[0]
    with torch.no_grad():
        latents, _ = method.latents(x)
        before = method.context(latents)
        for row in (0, 3, 5):
            changed = x.clone()
            changed[:, :, 4 * row + 8 :] = 1 - changed[:, :, 4 * row + 8 :]  # below the last pixel of the row's patches
            other, _ = method.latents(changed)
            after = method.context(other)
            torch.testing.assert_close(after[:, :, : row + 1], before[:, :, : row + 1], atol=1e-5, rtol=1e-4)
            assert (after[:, :, row + 1] - before[:, :, row + 1]).abs().max() > 1e-3


def test_the_context_sees_rows_above_and_both_sides(make):
    method = make(layers=1)
    latents = torch.randn(1, method.encoder.dim, 7, 7, requires_grad=True)
    method.context(latents)[0, :, 4, 3].sum().backward()
    seen = latents.grad[0].abs().sum(0) > 0
    want = torch.zeros(7, 7, dtype=torch.bool)
    want[2:5, 2:5] = True
    assert torch.equal(seen, want)


def test_the_loss_by_its_formula(make, make_batch):
    """One prediction after the other: each against all patches of the batch, its own image's as well."""
    method = make(steps=4, skip=2, number=None, temperature=2.0).eval()
    batch = make_batch(method, RECIPE, n=3)
    batch = replace(batch, index=torch.tensor([200, 3, 77]))
    with torch.no_grad():
        latents, target = method.latents(batch.views[0])
        context = method.context(latents)
        logged = method(batch, 0.0)
        losses, right = [], []
        for k, predict in zip((3, 4), method.predict, strict=True):
            one, hit = [], []
            for image in range(3):
                for r in range(7 - k):
                    for c in range(7):
                        answer = predict.weight[:, :, 0, 0] @ context[image, :, r, c] + predict.bias
                        scores = (target.flatten(0, 1) @ answer).double() / 2
                        own = 49 * image + 7 * (r + k) + c
                        one.append(float(torch.logsumexp(scores, 0) - scores[own]))
                        hit.append(float(scores[own] >= scores.max()))
            losses.append(sum(one) / len(one))
            right.append(sum(hit) / len(hit))
    assert float(logged["loss"]) == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert float(logged["accuracy"]) == pytest.approx(sum(right) / 2, abs=0.02)


def test_candidates_are_drawn_by_their_names(make, make_batch, monkeypatch):
    from miyagi.methods import cpc

    method, seen = make(**COARSE, number=20).eval(), []
    own = cpc.info_nce

    def look(query, key, negatives, temperature, keep):
        seen.append((negatives.detach(), keep))
        return own(query, key, negatives, temperature, keep=keep)

    monkeypatch.setattr(cpc, "info_nce", look)
    batch = make_batch(method, RECIPE, n=8)
    order = torch.tensor([5, 2, 7, 0, 1, 3, 4, 6])
    for other in (batch, Batch([batch.views[0][order]], order, order, batch.key), replace(batch, key=Key(0, 9))):
        method(other, 0.0)
    assert [len(negatives) for negatives, _ in seen] == [20] * 6 and len(method.offsets) == 2
    assert torch.equal(seen[0][0], seen[1][0])  # the same for all predictions of a step
    torch.testing.assert_close(seen[2][0], seen[0][0], atol=1e-5, rtol=1e-4)  # whatever the batch's order
    assert (seen[4][0] - seen[0][0]).abs().max() > 0.01
    _, keep = seen[1]  # two rows further down: row 2 of 3, of 8 images
    assert keep.shape == (24, 20) and (~keep).sum(1).max() == 1 and (~keep).sum(0).max() <= 1


def test_the_gradient_reaches_everything(make, make_batch):
    method = make(**COARSE)
    method(make_batch(method, RECIPE, n=8), 0.0)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())


def test_shuffled_positives_are_worse(encoder, info, make_batch, fit):
    """Predictions that are asked for another image's patches."""
    torch.manual_seed(0)
    settings = Settings(**COARSE, temperature=0.2, l2_normalize=True, head=Head(kind="linear", out=32))
    method = CPC(settings, encoder, info)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, RECIPE, steps=16, n=32)
    assert true < math.log(288)  # chance: each of the 9 patches of 32 images
    method.load_state_dict(state)
    method.context.register_forward_hook(lambda module, inputs, output: output[torch.randperm(len(output))])
    assert true < fit(method, RECIPE, steps=16, n=32) - 0.15


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({"patch": 0.5}, 32, "cpc: 3 rows of patches are too few for steps 5; lower steps or patch"),
        ({"patch": 0.1}, 32, "cpc: images of 32 pixels give patches of 3, and 4 is the least"),
    ],
)
def test_images_too_small(encoder, settings, size, message):
    with pytest.raises(UserError, match=message):
        CPC(Settings(**settings), encoder, DataInfo(n=8, classes=2, size=size, mean=(0.5,) * 3, std=(0.3,) * 3))


def test_nothing_to_predict():
    with pytest.raises(ValueError, match="skip 5 leaves nothing of steps 5 to predict"):
        Settings(skip=5)
