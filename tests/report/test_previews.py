import shutil

import numpy as np
import pytest
import yaml

from miyagi.data.betons import read_images, write_beton
from miyagi.report.previews import DRAWS, IMAGES, previews


@pytest.fixture(scope="module")
def shown(project):
    return previews(project, ["random", "simclr"])


def test_one_row_an_image_and_none_for_what_does_not_train(shown, project):
    assert list(shown) == ["simclr"]
    stored, _ = read_images(project.beton("digits", "train"), range(IMAGES))
    assert len(shown["simclr"]) == IMAGES
    for image, row in zip(stored, shown["simclr"], strict=True):
        assert len(row) == 1 + DRAWS  # the recipe has one view
        assert np.array_equal(row[0], image)
        assert {(picture.shape, picture.dtype) for picture in row} == {((32, 32, 3), np.dtype(np.uint8))}


def test_every_draw_is_another(shown):
    for row in shown["simclr"]:
        assert len({picture.tobytes() for picture in row}) == 1 + DRAWS


def test_the_same_every_time(shown, project):
    again = previews(project, ["simclr"])
    assert all(
        np.array_equal(a, b)
        for first, second in zip(shown["simclr"], again["simclr"], strict=True)
        for a, b in zip(first, second, strict=True)
    )


def test_it_is_the_experiment_s_own_recipe(project, copied):
    paths = copied(project)
    plain = yaml.safe_load(paths.experiment("simclr").read_text())
    off = {"crop": None, "pad": 0, "flip": 0.0, "jitter": None, "gray": 0.0, "blur": None, "solarize": 0.0}
    plain["views"] = [off, {**off, "flip": 1.0}]
    shutil.copytree(paths.experiment("simclr").parent, paths.experiment("plain").parent)
    paths.experiment("plain").write_text(yaml.safe_dump(plain))
    for row in previews(paths, ["plain"])["plain"]:
        assert len(row) == 1 + 2 * DRAWS
        assert all(np.array_equal(picture, row[0]) for picture in row[1::2])
        assert all(np.array_equal(picture, row[0][:, ::-1]) for picture in row[2::2])


def test_fewer_images_than_are_shown(project, copied):
    paths = copied(project)
    images, labels = read_images(paths.beton("digits", "train"), range(4))
    write_beton(paths.beton("digits", "train"), images, labels)
    assert len(previews(paths, ["simclr"])["simclr"]) == 4
