"""What a beton holds, against FFCV's own reading of it, Pillow's JPEG decoder and Pillow's resizing."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from miyagi.data import decode
from miyagi.data.betons import RAW_BYTES, read_images, square, write_beton
from miyagi.data.decode import Beton, centres, cut
from miyagi.errors import UserError

SHAPES = [(96, 128), (120, 90), (64, 64), (100, 100), (20, 80), (128, 96), (77, 131)]


def photo(height: int, width: int, top: int = 100, left: int = 150) -> np.ndarray:
    """A part of a real photograph."""
    return np.asarray(load_sample_image("china.jpg")[top : top + height, left : left + width])


def through_jpeg(image: np.ndarray) -> np.ndarray:
    """What Pillow makes of an image at JPEG quality 90."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [photo(*shape, left=20 * i) for i, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def mixed(pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photographs of seven shapes; the two small ones are stored raw."""
    path = tmp_path_factory.mktemp("decode") / "mixed.beton"
    write_beton(path, pictures, np.arange(7) * 3, largest=3 * 200 * 200, jpeg_quality=90)  # type: ignore[arg-type]
    return path


def test_the_format_is_the_installed_ffcv_s() -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.types import (
        ALLOC_TABLE_TYPE,
        CURRENT_VERSION,
        TYPE_ID_HANDLER,
        FieldDescType,
        HeaderType,
        get_metadata_type,
    )

    theirs = [HeaderType, FieldDescType, RGBImageField().metadata_type, ALLOC_TABLE_TYPE]
    theirs.append(get_metadata_type([RGBImageField(), IntField(), IntField()]))
    ours = [decode.HEADER, decode.FIELD, decode.PICTURE, decode.PLACE, decode.SAMPLE]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.itemsize == other.itemsize
        assert [mine.fields[name][1] for name in mine.names] == [other.fields[name][1] for name in other.names]  # type: ignore
    assert [TYPE_ID_HANDLER[kind] for kind, _ in decode.FIELDS] == [RGBImageField, IntField, IntField]
    assert CURRENT_VERSION == 2


@pytest.mark.parametrize("jpeg_quality", [None, 90])
def test_ffcv_s_own_loader_reads_the_same(tmp_path: Path, jpeg_quality: int | None) -> None:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader

    images = np.stack([photo(90, 110, left=10 * i) for i in range(9)])
    write_beton(tmp_path / "x.beton", images, np.arange(9) % 4, largest=images[0].nbytes, jpeg_quality=jpeg_quality)
    pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()], "index": [IntDecoder()]}
    loader = Loader(str(tmp_path / "x.beton"), 5, num_workers=1, drop_last=False, pipelines=pipelines)
    theirs = [[part.copy() for part in batch] for batch in loader]
    beton = Beton(tmp_path / "x.beton")
    assert np.array_equal(np.concatenate([batch[0] for batch in theirs]), np.stack([beton[i] for i in range(9)]))
    assert np.array_equal(np.concatenate([batch[1] for batch in theirs]).ravel(), beton.labels)
    assert np.concatenate([batch[2] for batch in theirs]).ravel().tolist() == list(range(9))


def test_jpegs_and_raw_images_of_any_shape(mixed: Path, pictures: list[np.ndarray]) -> None:
    beton = Beton(mixed)
    assert beton.side is None
    assert beton.labels.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert np.stack(beton.shapes(slice(None)), axis=1).tolist() == [list(shape) for shape in SHAPES]
    for i, picture in enumerate(pictures):
        off = np.abs(beton[i].astype(int) - picture)
        assert (off.max() == 0) == (picture.nbytes <= RAW_BYTES)
        assert off.mean() <= 1.2 * np.abs(through_jpeg(picture).astype(int) - picture).mean()


def test_jpegs_are_decoded_as_pillow_does_but_for_rounding(mixed: Path) -> None:
    beton = Beton(mixed)
    places = beton._places
    for i in (0, 1, 6):
        start, size = int(places["start"][i]), int(places["size"][i])
        with Image.open(io.BytesIO(mixed.read_bytes()[start : start + size])) as image:
            theirs = np.asarray(image.convert("RGB")).astype(int)
        # libturbojpeg's quick inverse transform; Pillow takes the exact one.
        assert np.abs(beton[i] - theirs).mean() < 1.5


def test_squares_are_the_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6000, 24, 24, 3), dtype=np.uint8)  # over two pages
    write_beton(tmp_path / "x.beton", images, np.zeros(6000, int))
    beton = Beton(tmp_path / "x.beton")
    rows = np.random.default_rng(1).permutation(6000)
    assert beton.side == 24
    assert np.array_equal(beton.squares(rows), images[rows].transpose(0, 3, 1, 2))
    assert np.array_equal(np.concatenate(list(beton.chunks(512))), images)


def test_images_laid_in_another_order_are_found_all_the_same(tmp_path: Path) -> None:
    """As several of FFCV's writing processes would leave them."""
    images = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 3), dtype=np.uint8)
    write_beton(tmp_path / "x.beton", images, np.arange(8))
    whole = np.memmap(tmp_path / "x.beton", np.uint8, "r+")
    samples = whole[decode.HEADER.itemsize + 3 * decode.FIELD.itemsize :][: 8 * decode.SAMPLE.itemsize]
    for starts in (samples.view(decode.SAMPLE)["image"]["start"], whole[-8 * 24 :].view(decode.PLACE)["start"]):
        starts[[2, 5]] = starts[[5, 2]]
    whole.flush()
    beton = Beton(tmp_path / "x.beton")
    assert beton.side is None
    assert np.array_equal(np.stack([beton[i] for i in range(8)]), images[[0, 1, 5, 3, 4, 2, 6, 7]])
    with pytest.raises(ValueError, match="differ in size"):
        beton.squares(np.arange(2))


def test_tables_that_contradict_each_other(tmp_path: Path) -> None:
    write_beton(tmp_path / "x.beton", np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, int))
    whole = np.memmap(tmp_path / "x.beton", np.uint8, "r+")
    whole[-4 * 24 :].view(decode.PLACE)["start"][3] += 1 << 40  # far behind the end of the file
    whole.flush()
    with pytest.raises(UserError, match=r"cannot read .*x\.beton: its tables contradict"):
        Beton(tmp_path / "x.beton")


def test_a_damaged_jpeg_names_the_file_and_the_image(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "x.beton").write_bytes(mixed.read_bytes())
    place = Beton(mixed)._places[1]
    whole = np.memmap(tmp_path / "x.beton", np.uint8, "r+")
    whole[int(place["start"]) : int(place["start"]) + 200] = 0
    whole.flush()
    beton = Beton(tmp_path / "x.beton")
    assert beton[0].shape == (96, 128, 3)
    with pytest.raises(UserError, match=r"x\.beton: image 1 is damaged"):
        beton[1]


@pytest.mark.parametrize("size", [8, 33, 64, 200])
def test_cuts_are_resized_as_pillow_does(size: int) -> None:
    image, rng = photo(200, 300), np.random.default_rng(size)
    for _ in range(20):
        height, width = int(rng.integers(1, 201)), int(rng.integers(1, 301))
        top, left = int(rng.integers(0, 201 - height)), int(rng.integers(0, 301 - width))
        part = Image.fromarray(image[top : top + height, left : left + width])
        theirs = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        ours = cut(image, (top, left, height, width), size)
        assert ours.shape == (3, size, size)
        assert np.abs(ours.transpose(1, 2, 0) - theirs).max() <= 1


def test_a_cut_of_the_right_size_is_the_pixels() -> None:
    image = photo(50, 60)
    assert np.array_equal(cut(image, (3, 7, 40, 40), 40).transpose(1, 2, 0), image[3:43, 7:47])


def test_centres_are_where_square_takes_them() -> None:
    for height, width in [(20, 31), (31, 20), (9, 9)]:
        ((top, left, side, again),) = centres(np.array([height]), np.array([width])).tolist()
        image = photo(height, width)
        assert side == again == min(height, width)
        assert np.array_equal(image[top : top + side, left : left + side], square(image, side))


def test_read_images_of_different_sizes_gives_squares(mixed: Path, pictures: list[np.ndarray]) -> None:
    images, labels = read_images(mixed, [3, 2, 0])
    assert images.shape == (3, 64, 64, 3)  # the smallest shorter side
    assert labels.tolist() == [9, 6, 0]
    assert np.array_equal(images[1], pictures[2])  # stored raw, and a square of 64 pixels already
    smaller = [square(image, 64).astype(int) for image in (pictures[3], through_jpeg(pictures[3]))]
    assert np.abs(images[0] - smaller[0]).mean() < 2 * np.abs(smaller[1] - smaller[0]).mean()
