import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.errors import UserError
from miyagi.methods.pirl import PIRL, Settings
from miyagi.recipes import RECIPES
from miyagi.settings import Head, Pretrain
from miyagi.train.loop import optimizer

RECIPE = RECIPES["none"].views


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)


@pytest.fixture
def make(encoder, info):
    def method(**settings):
        torch.manual_seed(1)
        return PIRL(Settings(head=Head(kind="linear", out=32), **settings), encoder, info).eval()

    return method


def coordinates(n=60, size=32):
    """Images whose red says the row and whose green says the column of each pixel."""
    row, column = torch.meshgrid(torch.arange(size) / 255, torch.arange(size) / 255, indexing="ij")
    x = torch.stack([row, column, torch.full_like(row, 0.5)]).expand(n, -1, -1, -1)
    return Batch([x, x], torch.arange(n), torch.zeros(n), Key(3, 1))


def test_the_papers_numbers():
    settings = Settings()
    assert (settings.weight, settings.temperature, settings.number, settings.bank_momentum) == (0.5, 0.07, 32000, 0.5)
    assert settings.head.out == 128 and len(RECIPES[settings.recipe].views) == 2


def test_nine_tiles_of_nine_cells_in_the_order_that_was_drawn(make):
    method = make()
    batch = coordinates()
    order = method.order(batch)
    assert torch.equal(order.sort(1).values, torch.arange(9).expand(60, 9))
    assert len({tuple(row) for row in order.tolist()}) == 60  # of 362,880
    tiles = method.tiles(batch)
    assert tiles.shape == (60, 9, 3, 7, 7)  # 64 / 85 of 10 pixels
    offset = (tiles[:, :, :2, 0, 0] * 255).round().long() - 1 - 10 * torch.stack([order // 3, order % 3], 2)
    assert offset.min() == 0 and offset.max() == 3  # inside of the cell that the order names


def test_draws_belong_to_the_image_and_not_to_the_batch(make):
    method, whole, rows = make(), coordinates(), torch.tensor([7, 30, 2])
    part = Batch([view[rows] for view in whole.views], whole.index[rows], whole.label[rows], whole.key)
    assert torch.equal(method.tiles(part), method.tiles(whole)[rows])
    assert not torch.equal(method.order(replace(whole, key=Key(3, 2))), method.order(whole))


def test_tiles_are_encoded_one_by_one_and_joined_in_their_order(make, make_batch):
    method = make()
    tiles, seen = method.tiles(make_batch(method, RECIPE, n=4)), []
    method.joint.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        method.embed_tiles(tiles)
        method.embed_tiles(tiles.flip(1))
        alone = method.tile_head(method.encoder(torch.nn.functional.interpolate(tiles[:, 2], size=16, mode="bilinear")))
    torch.testing.assert_close(seen[0].unflatten(1, (9, 32))[:, 2], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        seen[1].unflatten(1, (9, 32)), seen[0].unflatten(1, (9, 32)).flip(1), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_by_its_formula(make, make_batch, weight):
    """Both terms against the bank's feature of the image, with the 240 other images of the bank as noise."""
    method = make(weight=weight)
    batch = make_batch(method, RECIPE, n=16)
    bank = method.negatives.bank.features.double().numpy()
    with torch.no_grad():
        image = normalize(method.head(method.encoder(batch.views[0])).double(), dim=1).numpy()
        puzzle = method.embed_tiles(method.tiles(batch)).double().numpy()
        logged = method(batch, 0.0)

    def nce(v):
        scores, own = np.exp(v @ bank[16:].T / 0.07), np.exp((v * bank[:16]).sum(1) / 0.07)
        z, share = 256 * scores.mean(), 240 / 256
        return (-np.log(own / z / (own / z + share)) - np.log(share / (scores / z + share)).sum(1)).mean()

    assert float(logged["loss"]) == pytest.approx(weight * nce(puzzle) + (1 - weight) * nce(image), rel=1e-4)


def test_the_bank_takes_in_the_image_and_not_the_tiles(make, make_batch):
    method = make(bank_momentum=0.0)
    batch = make_batch(method, RECIPE, n=16)
    before = method.negatives.bank.features.clone()
    with torch.no_grad():
        image = normalize(method.head(method.encoder(batch.views[0])), dim=1)
        method(batch, 0.0)
    method.after_step(0.0)
    torch.testing.assert_close(method.negatives.bank.features[:16], image)
    assert torch.equal(method.negatives.bank.features[16:], before[16:])


def test_gradients(make, make_batch):
    """The tiles' term alone leaves the image's head without any; neither reaches the bank."""
    method = make(weight=1.0)
    method(make_batch(method, RECIPE, n=16), 0.0)["loss"].backward()
    reached = {n.partition(".")[0] for n, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"encoder", "tile_head", "joint"}
    assert not method.negatives.bank.features.requires_grad


def test_shuffled_positives_are_worse(encoder, info, coloured):
    """Each puzzle with its own image's feature in the bank, or with another's; nothing else pulls at it."""
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    images = coloured[0][:64].float() / 255

    def train(shuffle):
        torch.manual_seed(0)
        encoder.load_state_dict(state)
        settings = Settings(loss="info_nce", temperature=0.2, number=None, head=Head(kind="linear", out=32))
        method = PIRL(settings, encoder, replace(info, n=64))
        optimiser, losses = optimizer(method, Pretrain(lr=3e-3)), []
        for epoch in range(16):
            other = torch.randperm(64) if shuffle else torch.arange(64)
            for rows in torch.randperm(64).chunk(4):
                batch = Batch([images[rows], images[other[rows]]], rows, rows, Key(0, epoch))
                logged = method(batch, 0.0)
                optimiser.zero_grad()
                logged["loss"].backward()
                optimiser.step()
                method.after_step(0.0)
                losses.append(float(logged["loss"].detach()))
        return sum(losses[-8:]) / 8

    own = train(shuffle=False)
    assert own < math.log(49)  # chance: as near as to each of the 48 other images
    assert own < train(shuffle=True) - 0.2


def test_images_too_small_for_tiles(encoder):
    info = DataInfo(n=8, classes=2, size=15, mean=(0.5,) * 3, std=(0.3,) * 3)
    with pytest.raises(UserError, match=r"^pirl: images of 15 pixels give tiles of 3, and 4 is the least"):
        PIRL(Settings(), encoder, info)


def test_settings_that_go_nowhere_are_refused():
    with pytest.raises(ValueError, match="negatives"):
        Settings(negatives="batch")
