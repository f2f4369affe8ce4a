"""The pictures of a task, from a trainer on a small beton, read back as the report does it."""

import numpy as np
import pytest
import torch

from miyagi.data.augment import augment
from miyagi.data.betons import write_beton
from miyagi.data.decode import read_images
from miyagi.data.loader import Loader
from miyagi.data.rng import Key
from miyagi.methods.base import build
from miyagi.recipes import RECIPES
from miyagi.report.asked import read
from miyagi.settings import Pretrain
from miyagi.train.asked import DRAWS, IMAGES, asked, save
from miyagi.train.loop import Trainer

RECIPE = RECIPES["weak"].views


@pytest.fixture
def make(project, encoder, info):
    """make("rotation"): a trainer that has not trained, and its beton."""
    beton = project.beton("digits", "train")

    def trainer(name, beton=beton, seed=5):
        method = build(name, {}, encoder, info)
        return Trainer(method, Loader(beton, 64, seed=3), list(RECIPE), Pretrain(), size=32, seed=seed), beton

    return trainer


def test_stored_images_and_then_the_columns_of_show(make):
    trainer, beton = make("rotation")
    columns = asked(trainer, beton)
    names = ["turned", "turned back as answered"]
    assert list(columns) == ["stored", *(f"{name}, draw {draw}" for draw in (1, 2) for name in names)]
    assert {(images.shape, images.dtype) for images in columns.values()} == {((IMAGES, 32, 32, 3), np.dtype(np.uint8))}
    stored, _ = read_images(beton, range(IMAGES))
    assert np.array_equal(columns["stored"], stored)
    assert not np.array_equal(columns["turned, draw 1"], columns["turned, draw 2"])
    # Each picture is the augmented image by some quarter turns.
    index, raw = torch.arange(IMAGES), torch.from_numpy(stored).permute(0, 3, 1, 2)
    for draw in range(DRAWS):
        view = augment(raw, index, Key(5, draw), "image", RECIPE[0], 32)
        pixels = (view * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for name in names:
            for got, image in zip(columns[f"{name}, draw {draw + 1}"], pixels, strict=True):
                assert any(np.array_equal(got, np.rot90(image, k)) for k in range(4))


def test_by_default_the_views_are_shown(make):
    trainer, beton = make("simclr")
    columns = asked(trainer, beton)
    assert list(columns)[1:3] == ["first, draw 1", "second, draw 1"]
    assert len({images.tobytes() for images in columns.values()}) == 5


def test_nothing_of_the_training_changes(make):
    trainer, beton = make("rotation")
    before = {name: tensor.clone() for name, tensor in trainer.method.state_dict().items()}
    first, again = asked(trainer, beton), asked(trainer, beton)
    assert all(np.array_equal(images, again[name]) for name, images in first.items())
    assert trainer.method.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.method.state_dict().items())
    other, _ = make("rotation", seed=6)
    assert not np.array_equal(asked(other, beton)["turned, draw 1"], first["turned, draw 1"])


def test_fewer_images_than_are_shown(make, project, tmp_path):
    images, labels = read_images(project.beton("digits", "train"), range(4))
    write_beton(tmp_path / "few.beton", images, labels)
    trainer, beton = make("rotation", tmp_path / "few.beton")
    assert {len(shown) for shown in asked(trainer, beton).values()} == {4}


def test_written_and_read_back(make, tmp_path):
    trainer, beton = make("rotation")
    columns = asked(trainer, beton)
    for name in ("a", "b"):
        save(columns, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    shown = read(tmp_path / "a")
    assert shown.columns == list(columns)
    for number, row in enumerate(shown.rows):
        assert all(np.array_equal(picture, columns[name][number]) for name, picture in zip(columns, row, strict=True))
    save({}, tmp_path / "c")
    assert read(tmp_path / "c").rows == []
