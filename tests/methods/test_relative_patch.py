import pytest
import torch

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods.relative_patch import RelativePatch, Settings, layout
from miyagi.recipes import RECIPES
from miyagi.settings import Head

PLACES = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
"""Rows and columns of the neighbours, seen from the middle, class by class."""
SMALL = {"width": 64, "head": Head(kind="linear", out=32)}


def coordinates(n=40, size=32):
    """Images whose red says the row and whose green says the column of each pixel."""
    row, column = torch.meshgrid(torch.arange(size) / 255, torch.arange(size) / 255, indexing="ij")
    x = torch.stack([row, column, torch.full_like(row, 0.5)]).expand(n, -1, -1, -1)
    return Batch([x], torch.arange(n), torch.zeros(n), Key(3, 1))


def corners(patches):
    """N x P x 2: the first row and column of patches of `coordinates`."""
    return (patches[:, :, :2, 0, 0] * 255).round().long()


@pytest.mark.parametrize(
    ("size", "expected"), [(28, (6, 3, 1)), (32, (7, 4, 1)), (96, (22, 11, 2)), (224, (54, 27, 4))]
)
def test_the_grid_fills_the_image(size, expected):
    side, gap, jitter = layout(size, 0.5, 7 / 96)
    assert (side, gap, jitter) == expected
    assert 3 * side + 2 * gap + 2 * jitter <= size


def test_without_gap_and_jitter_nine_thirds_are_left():
    assert layout(33, 0, 0) == (11, 0, 0)


def test_where_the_patches_lie(encoder, info):
    method = RelativePatch(Settings(jitter=0), encoder, info)
    patches = method.patches(coordinates())
    assert patches.shape == (40, 9, 3, 8, 8)  # 3 x 8 + 2 x 4 = 32: the grid has one place only
    found = corners(patches)
    assert (found[:, 0] == 12).all()
    want = torch.tensor([[12 + 12 * row, 12 + 12 * column] for row, column in PLACES])
    assert (found[:, 1:] == want).all()
    whole = (patches[:, :, :2] * 255).round().long()
    assert torch.equal(whole[..., -1, -1], found + 7)


def test_gap_jitter_and_origin(encoder, info):
    method = RelativePatch(Settings(gap=0.25, jitter=0.1), encoder, info)
    side, gap, jitter = method.side, method.gap, method.jitter
    assert (side, gap, jitter) == (8, 2, 1)  # 24 + 4 + 2 = 30: 2 pixels left for the grid's origin
    found = corners(method.patches(coordinates(400)))
    offset = found[:, 1:] - found[:, :1] - torch.tensor(PLACES) * (side + gap)
    assert offset.min() == -2 * jitter and offset.max() == 2 * jitter
    assert found.min() == 0 and found.max() == 32 - side
    assert len({tuple(row) for row in found.flatten(1).tolist()}) == 400  # an image's own draws
    again = method.patches(coordinates(400))
    assert torch.equal(corners(again), found)
    other = coordinates(400)
    assert not torch.equal(corners(method.patches(Batch(other.views, other.index, other.label, Key(3, 2)))), found)


def test_draws_belong_to_the_image_and_not_to_the_batch(encoder, info):
    method = RelativePatch(Settings(), encoder, info)
    whole = coordinates()
    rows = torch.tensor([7, 30, 2])
    part = Batch([whole.views[0][rows]], whole.index[rows], whole.label[rows], whole.key)
    assert torch.equal(method.patches(part), method.patches(whole)[rows])
    assert torch.equal(
        method.drop_color(method.patches(part), part), method.drop_color(method.patches(whole), whole)[rows]
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_colour_dropping(encoder, info, share):
    method = RelativePatch(Settings(color_drop=share), encoder, info)
    batch = coordinates(200)
    batch.views[0] = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    patches = method.patches(batch)
    got = method.drop_color(patches, batch)
    kept = (got == patches).flatten(3).all(3)  # N x 9 x 3
    mean = (got == method.encoder.mean).flatten(3).all(3)
    assert torch.equal(kept, ~mean)
    assert set(kept.sum(2).flatten().tolist()) <= {1, 3}
    assert (kept.sum(2) == 1).float().mean() == pytest.approx(share, abs=0.05)
    if share == 1:
        assert kept.float().mean((0, 1)).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
        assert not (kept == kept[:, :1]).all()  # each patch has its own channel


def test_a_pair_is_the_middle_and_its_neighbour(encoder, info, make_batch):
    """Late fusion: the classifier's input is what the head gives for the two patches, the middle one first."""
    method = RelativePatch(Settings(positions=4, color_drop=0, **SMALL), encoder, info).eval()
    batch = make_batch(method, RECIPES["none"].views, n=6)
    seen = []
    method.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert method.logits(batch).shape == (6, 4, 4)
    for place in range(4):
        for part, patch in zip(seen[0][:, place].chunk(2, 1), (0, 1 + place), strict=True):
            large = torch.nn.functional.interpolate(method.patches(batch)[:, patch], size=16, mode="bilinear")
            torch.testing.assert_close(part, method.head(method.encoder(large)))


def test_shuffled_targets_are_worse(encoder, info, fit):
    recipe = RECIPES["none"].views
    torch.manual_seed(0)
    method = RelativePatch(Settings(**SMALL), encoder, info)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, recipe)
    method.load_state_dict(state)
    patches = method.patches

    def shuffled(batch):
        found = patches(batch)
        order = torch.rand(len(found), 8, generator=torch.Generator().manual_seed(int(batch.index[0]))).argsort(1)
        return torch.cat([found[:, :1], found[torch.arange(len(found))[:, None], 1 + order]], 1)

    method.patches = shuffled
    assert true < fit(method, recipe) - 0.15


def test_large_patches_are_not_enlarged(encoder):
    info = DataInfo(n=8, classes=2, size=96, mean=(0.5,) * 3, std=(0.3,) * 3)
    method, seen = RelativePatch(Settings(**SMALL), encoder, info), []
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    out = method(coordinates(2, 96), 0.0)
    assert seen == [(18, 3, 22, 22)]
    assert torch.isfinite(out["loss"]) and 0 <= out["accuracy"] <= 1


def test_images_too_small_for_patches(encoder):
    info = DataInfo(n=8, classes=2, size=14, mean=(0.5,) * 3, std=(0.3,) * 3)
    with pytest.raises(UserError, match=r"^relative_patch: images of 14 pixels give patches of 2, and 4 is the least"):
        RelativePatch(Settings(), encoder, info)


def test_pictures_of_question_and_answer(encoder, info):
    method = RelativePatch(Settings(jitter=0, **SMALL), encoder, info).eval()
    batch = coordinates(12)
    with torch.no_grad():
        method.classifier[-1].bias[6] = 100.0  # always answers "below"
        shown = method.show(batch)
    assert [tuple(images.shape[2:]) for images in shown.values()] == [(8, 8), (8, 8), (32, 32), (32, 32)]
    answered, true = shown["answered place"], shown["true place"]
    assert torch.equal(answered[:, :, 12:20, 12:20], shown["middle"])
    assert torch.equal(answered[:, :, 24:32, 12:20], shown["neighbour"])
    where = corners(shown["neighbour"][:, None])[:, 0]
    assert len(set(map(tuple, where.tolist()))) > 3  # not always the same neighbour
    for picture, neighbour, (row, column) in zip(true, shown["neighbour"], where.tolist(), strict=True):
        assert torch.equal(picture[:, row : row + 8, column : column + 8], neighbour)
        assert (picture == 0.5).flatten(1).all(0).sum() == 32 * 32 - 2 * 64
