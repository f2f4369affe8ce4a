import math

import pytest
import torch

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.permutations import permutation_set
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods.jigsaw import Jigsaw, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import Head

RECIPE = RECIPES["none"].views
SMALL = {"permutations": 24, "width": 64, "head": Head(kind="linear", out=32)}


def coordinates(n=40, size=32):
    """Images whose red says the row and whose green says the column of each pixel."""
    row, column = torch.meshgrid(torch.arange(size) / 255, torch.arange(size) / 255, indexing="ij")
    x = torch.stack([row, column, torch.full_like(row, 0.5)]).expand(n, -1, -1, -1)
    return Batch([x], torch.arange(n), torch.zeros(n), Key(3, 1))


@pytest.mark.parametrize(("size", "cell", "side"), [(28, 9, 7), (32, 10, 8), (96, 32, 27), (224, 74, 63)])
def test_tiles_are_crops_of_their_cells(encoder, size, cell, side):
    info = DataInfo(n=8, classes=2, size=size, mean=(0.5,) * 3, std=(0.3,) * 3)
    method = Jigsaw(Settings(**SMALL), encoder, info)
    assert (method.cell, method.side) == (cell, side)
    tiles = method.tiles(coordinates(200, size))
    assert tiles.shape == (200, 9, 3, side, side)
    first = (tiles[:, :, :2, 0, 0] * 255).round().long()
    margin = (size - 3 * cell) // 2
    offset = first - torch.tensor([[margin + cell * (i // 3), margin + cell * (i % 3)] for i in range(9)])
    assert offset.min() == 0 and offset.max() == cell - side  # inside of the cell, and all of its places
    assert torch.equal((tiles[:, :, :2, -1, -1] * 255).round().long(), first + side - 1)
    assert len({tuple(row) for row in offset.flatten(1).tolist()}) > 190


def test_draws_belong_to_the_image_and_not_to_the_batch(encoder, info):
    method = Jigsaw(Settings(**SMALL), encoder, info)
    whole, rows = coordinates(), torch.tensor([7, 30, 2])
    part = Batch([whole.views[0][rows]], whole.index[rows], whole.label[rows], whole.key)
    assert torch.equal(method.tiles(part), method.tiles(whole)[rows])
    assert torch.equal(method.target(part), method.target(whole)[rows])
    later = Batch(whole.views, whole.index, whole.label, Key(3, 2))
    assert not torch.equal(method.target(later), method.target(whole))


def test_every_permutation_is_asked(encoder, info):
    method = Jigsaw(Settings(puzzles=5, **SMALL), encoder, info)
    target = method.target(coordinates(400))
    assert target.shape == (400, 5)
    assert torch.bincount(target.flatten(), minlength=24).min() > 50  # 83 on average
    assert torch.equal(method.permutations, torch.tensor(permutation_set(24)))


def test_the_classifier_sees_the_tiles_in_the_order_of_its_target(encoder, info, make_batch):
    method = Jigsaw(Settings(**SMALL), encoder, info).eval()
    tiles, seen = method.tiles(make_batch(method, RECIPE, n=2)), []
    method.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.permutations = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1, 0]])
    method.logits(tiles, torch.tensor([[0, 1], [1, 1]]))
    plain = seen[0][0, 0].reshape(9, 32)
    assert torch.equal(seen[0][0, 1].reshape(9, 32), plain.flip(0))
    assert torch.equal(seen[0][1, 0], seen[0][1, 1])
    # A tile's place does not matter to the encoder: moved tiles give moved features.
    method.logits(tiles.roll(1, dims=1), torch.tensor([[0, 0], [0, 0]]))
    torch.testing.assert_close(seen[1][0, 0].reshape(9, 32), plain.roll(1, dims=0), atol=1e-5, rtol=1e-4)


def test_mean_and_contrast_of_a_tile_tell_nothing(encoder, make_batch):
    info = DataInfo(n=8, classes=2, size=96, mean=(0.5,) * 3, std=(0.3,) * 3)
    method, seen = Jigsaw(Settings(**SMALL), encoder, info).eval(), []
    method.encoder.blocks["conv1"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tiles = 0.2 + 0.5 * torch.rand(4, 9, 3, 27, 27, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(4, 1, dtype=torch.int64)
    before = method.logits(tiles, target)
    assert seen[0].shape == (36, 3, 27, 27)
    assert seen[0].mean((2, 3)).abs().max() < 1e-4  # what the first layer is given
    assert (seen[0].std((2, 3), correction=0) - 1).abs().max() < 1e-4
    gain = torch.linspace(0.5, 1.2, 27).reshape(1, 9, 3, 1, 1)
    torch.testing.assert_close(method.logits(tiles * gain + gain / 9, target), before, atol=1e-4, rtol=1e-3)


def test_the_loss_and_the_accuracy(encoder, info, make_batch):
    method = Jigsaw(Settings(puzzles=3, **SMALL), encoder, info)
    batch = make_batch(method, RECIPE, n=16)
    with torch.no_grad():
        method.classifier[-1].weight.zero_()
        method.classifier[-1].bias.zero_()
        method.classifier[-1].bias[5] = 2.0  # one answer to everything, with a share of e^2 / (e^2 + 23)
        logged = method(batch, 0.0)
    right = (method.target(batch) == 5).float().mean()
    want = math.log(math.e**2 + 23) - 2 * right
    torch.testing.assert_close(logged["loss"], want)
    assert logged["accuracy"] == right


def test_shuffled_targets_are_worse(encoder, info, fit):
    torch.manual_seed(0)
    method = Jigsaw(Settings(puzzles=4, **SMALL), encoder, info)
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    true = fit(method, RECIPE)
    method.load_state_dict(state)
    tiles = method.tiles

    def shuffled(batch):  # the tiles lie in any order before they are shuffled, so that no order can be told
        found = tiles(batch)
        order = torch.rand(len(found), 9, generator=torch.Generator().manual_seed(int(batch.index[0]))).argsort(1)
        return found[torch.arange(len(found))[:, None], order]

    method.tiles = shuffled
    assert true < fit(method, RECIPE) - 0.15


def test_images_too_small_for_tiles(encoder):
    info = DataInfo(n=8, classes=2, size=13, mean=(0.5,) * 3, std=(0.3,) * 3)
    with pytest.raises(UserError, match=r"^jigsaw: images of 13 pixels give tiles of 3, and 4 is the least"):
        Jigsaw(Settings(), encoder, info)


def test_a_right_answer_puts_the_tiles_back(encoder, info):
    method = Jigsaw(Settings(**SMALL), encoder, info).eval()
    batch = coordinates(12)
    target = method.target(batch)[:, 0]
    with torch.no_grad():
        method.classifier[-1].bias[target[0]] = 1000.0  # the answer to everything
        shown = method.show(batch)
    right = target == target[0]
    assert right.any() and not right.all()
    same = (shown["answer"] == shown["truth"]).flatten(1).all(1)
    assert torch.equal(same, right)
    assert (shown["puzzle"] != shown["truth"]).flatten(1).any(1).all()
