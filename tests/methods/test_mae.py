import numpy as np
import pytest
import torch
from pydantic import ValidationError

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods.mae import MAE, Settings, patchify, unpatchify
from miyagi.nn.encoders.base import build
from miyagi.recipes import RECIPES

RECIPE = RECIPES["none"].views
SMALL = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
VIT = {"name": "vit_tiny", "patch": 8, "width": 24, "depth": 1}


def make(info, patch=8, **settings):
    torch.manual_seed(0)
    encoder = build(VIT | {"patch": patch}, (0.5,) * 3, (0.3,) * 3)
    return MAE(Settings(**(SMALL | settings)), encoder, info)


def noise(n=40, size=32):
    x = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    return Batch([x], torch.arange(n), torch.zeros(n), Key(3, 1))


@pytest.mark.parametrize(("mask", "kept"), [(0.75, 16), (0.5, 32), (0.9, 6), (0.999, 1), (0.001, 63)])
def test_the_share_of_patches_is_masked(info, mask, kept):
    method = make(info, patch=4, mask=mask)
    visible = method.visible(noise(400))
    assert visible.shape == (400, kept)
    assert all(len(set(row)) == kept for row in visible.tolist())
    times = visible.flatten().bincount(minlength=64)
    assert times.float().mean() == pytest.approx(400 * kept / 64)
    assert times.min() > 0 and times.max() < 400 * kept / 64 + 5 * (400 * kept / 64) ** 0.5


def test_draws_belong_to_the_image_and_not_to_the_batch(info):
    method, whole, rows = make(info), noise(), torch.tensor([7, 30, 2])
    part = Batch([whole.views[0][rows]], whole.index[rows], whole.label[rows], whole.key)
    assert torch.equal(method.visible(part), method.visible(whole)[rows])
    assert not torch.equal(
        method.visible(Batch(whole.views, whole.index, whole.label, Key(3, 2))), method.visible(whole)
    )


def test_patches_row_by_row():
    x = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    patches = patchify(x, 4)
    assert torch.equal(patches[1, 1], x[1, :, :4, 4:].flatten())
    assert torch.equal(unpatchify(patches, 4), x)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_by_numpy_and_no_loss_on_what_was_seen(info, normalize):
    method, batch = make(info, normalize=normalize), noise(6)
    x, visible = batch.views[0], method.visible(batch)
    with torch.no_grad():
        logged, answer = method(batch, 0.0), method.reconstruct(x, visible).numpy()
    loss, errors, masked = float(logged["loss"]), [], []
    for i in range(6):
        for place in set(range(16)) - set(visible[i].tolist()):
            row, column = 8 * (place // 4), 8 * (place % 4)
            patch = x[i, :, row : row + 8, column : column + 8].numpy().flatten().astype(float)
            if normalize:
                patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            errors.append(np.square(answer[i, place] - patch).mean())
            masked.append(patch)
    assert len(errors) == 6 * 12
    assert loss == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(logged["explained"]) == pytest.approx(1 - np.mean(errors) / np.var(masked), rel=1e-3)
    # Whatever is answered where the patch was seen, the loss is the same.
    own = method.reconstruct
    method.reconstruct = lambda x, visible: own(x, visible).scatter(1, visible[:, :, None].expand(-1, -1, 192), 100.0)
    assert float(method(batch, 0.0)["loss"].detach()) == pytest.approx(loss, rel=1e-6)


def test_masked_patches_are_not_seen(info):
    method, batch = make(info), noise(6)
    visible = method.visible(batch)
    seen = torch.zeros(6, 16, 1).scatter(1, visible[:, :, None], 1.0)
    other = unpatchify(patchify(batch.views[0], 8) * seen, 8)  # black where nothing may be seen
    with torch.no_grad():
        assert torch.equal(method.reconstruct(batch.views[0], visible), method.reconstruct(other, visible))
        assert not torch.allclose(method.reconstruct(1 - other, visible), method.reconstruct(other, visible))


def test_without_mask_the_encoder_is_the_encoder(info):
    """Given all tokens but one, its answers lie where those of the same tokens lie, whatever their order."""
    method, batch = make(info, mask=0.01), noise(4)
    visible = method.visible(batch)
    with torch.no_grad():
        first = method.reconstruct(batch.views[0], visible)
        torch.testing.assert_close(method.reconstruct(batch.views[0], visible.flip(1)), first, rtol=1e-4, atol=1e-5)


def test_shuffled_targets_are_worse(info, digits):
    """Digits on paper of any colour: what was taken away can be told from what was not, if it is the same image."""
    losses = []
    for shift in (0, 1):
        method, generator = make(info, normalize=False, mask=0.5), torch.Generator().manual_seed(0)
        own = method.target
        method.target = lambda x, own=own, shift=shift: own(x).roll(shift, dims=0)
        optimiser = torch.optim.AdamW(method.parameters(), lr=0.01)
        found = []
        for step in range(60):
            rows = torch.arange(16) + 16 * step
            paper = torch.rand(16, 3, 1, 1, generator=generator)
            loss = method(Batch([(1 - digits[0][rows] / 255) * paper], rows, rows, Key(0, step)), 0.0)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found.append(float(loss.detach()))
        losses.append(sum(found[-10:]) / 10)
    assert losses[0] < 0.8 * losses[1]


def test_other_encoders_and_sizes_are_refused(encoder, info):
    with pytest.raises(
        UserError, match=r"^mae takes patches away from a vision transformer: set `encoder: \{name: vit_"
    ):
        MAE(Settings(), encoder, info)
    small = DataInfo(n=8, classes=2, size=30, mean=(0.5,) * 3, std=(0.3,) * 3)
    with pytest.raises(UserError, match="30 pixels are no whole patches of 8"):
        make(small)
    for wrong in ({"mask": 1.0}, {"mask": 0.0}, {"decoder_width": 30}):
        with pytest.raises(ValidationError):
            Settings(**wrong)


def test_pictures(info, make_batch):
    method = make(info).eval()
    batch = make_batch(method, RECIPE, n=4)
    with torch.no_grad():
        shown = method.show(batch)
    seen = torch.zeros(4, 16, 1).scatter(1, method.visible(batch)[:, :, None], 1.0).bool()[:, :, 0]
    truth, given, answer = (patchify(shown[name], 8) for name in ("truth", "given", "answer"))
    assert torch.equal(given[seen], truth[seen]) and torch.equal(answer[seen], truth[seen])
    assert (given[~seen] == 0.5).all()
