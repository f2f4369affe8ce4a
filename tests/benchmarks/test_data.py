"""Both sides get the same images, whatever folder they come from."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import data
from miyagi.data.betons import read_images
from miyagi.errors import UserError
from miyagi.paths import Paths


def decoded(files):
    return np.stack([np.asarray(Image.open(file)) for file in files])


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_counts(built):
    root, record = built
    assert (record["train"], record["test"], record["classes"]) == (200, 50, 10)
    assert record["seconds"] > 0
    assert data.exists(root)


@pytest.mark.parametrize(("split", "where"), [("train", "train"), ("test", "test")])
def test_lightly_and_ours_read_the_same_images(built, split, where):
    root, _ = built
    theirs = files(root / data.folders(root)[where])
    ours, labels = read_images(Paths(root).beton(data.KEY, split))
    pixels = decoded(theirs)
    assert {image.tobytes() for image in pixels} == {image.tobytes() for image in ours}
    assert len(pixels) == len(ours)
    classes = sorted({file.parent.name for file in theirs})
    of_theirs = {image.tobytes(): classes.index(file.parent.name) for image, file in zip(pixels, theirs, strict=True)}
    assert [of_theirs[image.tobytes()] for image in ours] == labels.tolist()


def test_files_of_the_stored_size_are_the_users_own(built, image_folder):
    root, _ = built
    own = {path.read_bytes() for path in files(image_folder / "train")}
    kept = [path.read_bytes() in own for path in files(root / "data" / "peers" / "train")]
    assert 0.7 < np.mean(kept) < 1  # all but those that had to be resized
    assert {path.suffix for path in files(root / "data" / "peers" / "train")} == {".png", ".jpg"}


def test_held_out_images_are_not_trained_on(built):
    root, _ = built
    trained = {image.tobytes() for image in decoded(files(root / "data" / "peers" / "train"))}
    val, _ = read_images(Paths(root).beton(data.KEY, "val"))
    test, _ = read_images(Paths(root).beton(data.KEY, "test"))
    assert not trained & {image.tobytes() for image in (*val, *test)}


def test_fashion_mnist_is_the_default(tmp_path):
    record = data.build(str(tmp_path), None, images=60, test_images=20, size=32)
    assert (record["train"], record["test"], record["classes"]) == (60, 20, 10)
    assert [len(files(tmp_path / "data" / "peers" / "train" / str(label))) for label in range(10)] == [6] * 10
    assert decoded(files(tmp_path / "data" / "raw" / "test")).shape == (20, 32, 32, 3)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "train" / "one").mkdir(parents=True)
    with pytest.raises(UserError, match="needs class folders with images in them, two at least"):
        data.build(str(tmp_path / "root"), str(tmp_path), images=10, test_images=10, size=32)
    with pytest.raises(UserError, match="--images: cannot read"):
        data.build(str(tmp_path / "root"), str(tmp_path / "nowhere"), images=10, test_images=10, size=32)
    (tmp_path / "train" / "two").mkdir()
    with pytest.raises(UserError, match="there are no images in"):
        data.build(str(tmp_path / "root"), str(tmp_path), images=10, test_images=10, size=32)
