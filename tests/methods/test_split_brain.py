import numpy as np
import pytest
import torch
from skimage import color
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors

from miyagi.data.lab import rgb_to_lab
from miyagi.methods.split_brain import Settings, SplitBrain
from miyagi.nn.encoders.base import build
from miyagi.recipes import RECIPES

RECIPE = RECIPES["none"].views
SMALL = {"bins": 20.0, "light_bins": 20, "width": 16}


@pytest.fixture
def method(info):
    torch.manual_seed(0)
    encoder = build({"name": "pair", "of": {"name": "conv4", "width": 8}}, info.mean, info.std)
    return SplitBrain(Settings(**SMALL), encoder, info)


def test_each_half_answers_what_it_does_not_see(method, make_batch):
    lab = rgb_to_lab(make_batch(method, RECIPE, n=8).views[0])
    method.eval()
    with torch.no_grad():
        colors, light = method.logits(lab)
        assert colors.shape == (8, len(method.bins), 8, 8) and light.shape == (8, 20, 8, 8)
        other_colors, other_light = method.logits(torch.cat([lab[:, :1], -lab[:, 1:]], 1))
        assert torch.equal(other_colors, colors) and not torch.equal(other_light, light)
        other_colors, other_light = method.logits(torch.cat([100 - lab[:, :1], lab[:, 1:]], 1))
        assert torch.equal(other_light, light) and not torch.equal(other_colors, colors)


def test_targets_by_hand(method):
    # White, black, and a red of L 53.24, a 80.09, b 67.20 (Lindbloom), each a whole image.
    shades = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    colors, light = method.target(rgb_to_lab(shades[:, :, None, None].expand(-1, -1, 32, 32).contiguous()))
    assert colors.shape == light.shape == (3, 8, 8)
    assert light.flatten(1).unique(dim=1).tolist() == [[19], [0], [10]]  # 20 bins of 5
    assert method.bins[colors[:, 0, 0]].tolist() == [[0, 0], [0, 0], [80, 60]]


def test_targets_and_loss_by_other_libraries(method, make_batch):
    batch = make_batch(method, RECIPE, n=6)
    method.eval()
    lab = color.rgb2lab(batch.views[0].numpy(), channel_axis=1)
    coarse = lab.reshape(6, 3, 8, 4, 8, 4).mean((3, 5)).transpose(0, 2, 3, 1).reshape(-1, 3)
    colors = NearestNeighbors(n_neighbors=1).fit(method.bins.numpy()).kneighbors(coarse[:, 1:])[1][:, 0]
    light = np.minimum(coarse[:, 0] // 5, 19)
    with torch.no_grad():
        logged, answers = method(batch, 0.0), method.logits(rgb_to_lab(batch.views[0]))
    expected = []
    for logits, target in zip(answers, (colors, light), strict=True):
        share = logits.permute(0, 2, 3, 1).flatten(0, 2).double().softmax(1).numpy()
        expected.append(log_loss(target, share, labels=np.arange(share.shape[1])))
    assert float(logged["loss"]) == pytest.approx(sum(expected), rel=2e-3)
    assert float(logged["accuracy"]) == pytest.approx(float(logged["accuracy_ab"] + logged["accuracy_l"]) / 2)


def test_downstream_keeps_both_halves(method):
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = method.eval().encoder(x)
    assert features.shape == (2, 2 * 8 * 4)
    assert list(method.head) == []
    kept = set(method.encoder.state_dict())
    assert {"first.blocks.conv1.0.weight", "second.blocks.conv1.0.weight"} <= kept
    assert not any("decoder" in name for name in kept)


def test_shuffled_targets_are_worse(method, fit):
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, RECIPE, steps=40, lr=0.01)
    method.load_state_dict(state)
    own = method.target
    method.target = lambda lab: own(lab.roll(1, dims=0))  # another image's
    assert true < fit(method, RECIPE, steps=40, lr=0.01) - 0.25


def test_pictures_of_question_and_answer(method, make_batch):
    batch = make_batch(method, RECIPE, n=4)
    with torch.no_grad():
        shown = method.eval().show(batch)
    assert list(shown) == ["given L", "answered ab", "given ab", "answered L", "truth"]
    lab = {name: color.rgb2lab(images.clamp(0, 1).numpy(), channel_axis=1) for name, images in shown.items()}
    assert np.abs(lab["given L"][:, 1:]).max() < 0.5
    np.testing.assert_allclose(lab["given L"][:, 0], lab["truth"][:, 0], atol=0.1)
    assert np.abs(lab["given ab"][:, 0] - 50).mean() < 5  # but for colours that no screen shows at that lightness
