"""Folders as people have them: every mode, damaged files, odd names, links that go round in circles."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miyagi.data.source import Raw, to_rgb
from miyagi.data.sources import imagefolder
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset

RED, BLUE = (200, 10, 30), (10, 20, 250)


def put(file: Path, color: Any = RED, mode: str = "RGB", **save: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (12, 10), color).save(file, **save)


def load(root: Path, path: str = "pics") -> Raw:
    return imagefolder.load(Dataset(source="imagefolder", path=path), Paths(root))


@pytest.fixture
def pics(tmp_path: Path) -> Path:
    """Two classes of three images each."""
    for i in range(3):
        put(tmp_path / "pics" / "ant" / f"{i}.png", RED)
        put(tmp_path / "pics" / "bee" / f"{i}.png", BLUE)
    return tmp_path / "pics"


def test_one_tree(pics: Path, tmp_path: Path) -> None:
    raw = load(tmp_path)
    assert raw.classes == ["ant", "bee"]
    assert raw.test is None
    assert raw.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert raw.train.labels.dtype == np.int64
    assert (raw.train.read(4) == BLUE).all()
    assert raw.train.read(4).shape == (10, 12, 3)
    assert (raw.skipped, raw.notes) == ([], [])
    assert load(tmp_path, str(pics)).digest == raw.digest  # an absolute path


def test_train_and_test(tmp_path: Path) -> None:
    for split, n in (("train", 3), ("test", 2), ("val", 1)):
        for name in ("ant", "bee"):
            for i in range(n):
                put(tmp_path / "pics" / split / name / f"{i}.jpg")
    raw = load(tmp_path)
    assert raw.test is not None
    assert raw.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert raw.test.labels.tolist() == [0, 0, 1, 1]
    assert raw.notes == ["beside train and test, not read: val"]


def test_the_digest_names_content_and_names(pics: Path, tmp_path: Path) -> None:
    first = load(tmp_path).digest
    (pics / "ant" / ".DS_Store").write_bytes(b"hidden")
    (pics / ".dvc").mkdir()
    (pics / "bee" / "notes.txt").write_text("not an image")
    raw = load(tmp_path)
    assert raw.digest == first
    assert raw.notes == ["1 files have no suffix of an image and were ignored"]
    put(pics / "ant" / "0.png", BLUE)
    changed = load(tmp_path).digest
    (pics / "ant" / "2.png").rename(pics / "ant" / "3.png")
    assert len({first, changed, load(tmp_path).digest}) == 3


def test_order_is_bytewise(tmp_path: Path) -> None:
    names = ["b", "B", "ä", "a", "Z", "10", "9"]
    for name in names:
        put(tmp_path / "pics" / name / "x.png")
    assert load(tmp_path).classes == sorted(names, key=str.encode)


def test_names_stay_text(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>".replace("/", "_"), "two words", "Žluťoučký 猫 🐈", "$(touch x); 'q' \"", "-rf"]
    for name in names:
        put(tmp_path / "pics" / name / "an image.png")
    assert sorted(load(tmp_path).classes) == sorted(names)
    assert unicodedata.normalize("NFC", names[2]) == names[2]


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    put(tmp_path / "pics" / "plain" / "x.png")
    odd = os.fsencode(tmp_path / "pics") + b"/caf\xe9"
    os.mkdir(odd)
    (tmp_path / "pics" / "plain" / "x.png").rename(os.fsdecode(odd + b"/x.png"))
    put(tmp_path / "pics" / "plain" / "x.png")
    assert load(tmp_path).classes == ["caf\\xe9", "plain"]


def test_one_damaged_image_is_left_out_and_named(pics: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pics / "ant" / "3.jpg")
    whole = (pics / "ant" / "3.jpg").read_bytes()
    (pics / "ant" / "1.png").write_bytes(b"not an image at all")
    (pics / "ant" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    (pics / "bee" / "0.png").write_bytes(b"")
    (pics / "bee" / "5.png").symlink_to("nowhere")
    raw = load(tmp_path)
    assert [entry["file"] for entry in raw.skipped] == ["ant/1.png", "ant/3.jpg", "bee/0.png", "bee/5.png"]
    assert "truncated" in raw.skipped[1]["reason"]
    assert not any(str(tmp_path) in entry["reason"] or "0x" in entry["reason"] for entry in raw.skipped)
    assert raw.train.labels.tolist() == [0, 0, 1, 1]
    assert (raw.train.read(1) == RED).all()
    assert raw.skipped == load(tmp_path).skipped


def test_a_class_of_damaged_images_only(pics: Path, tmp_path: Path) -> None:
    for file in (pics / "bee").iterdir():
        file.write_bytes(b"gone")
    with pytest.raises(
        UserError, match=r"class 'bee' has no readable image in .*bee \(e\.g\. bee/0\.png: not an image"
    ):
        load(tmp_path)


def test_an_image_that_changes_later(pics: Path, tmp_path: Path) -> None:
    raw = load(tmp_path)
    (pics / "bee" / "1.png").unlink()
    with pytest.raises(UserError, match=r"bee/1\.png changed while it was being read"):
        raw.train.read(4)


def test_links_to_folders_are_refused(pics: Path, tmp_path: Path) -> None:
    """DVC hashes a folder without following them; a loop of links is one too."""
    link = pics / "ant" / "again"
    link.symlink_to(pics, target_is_directory=True)
    with pytest.raises(UserError, match=r"again is a link to a folder"):
        load(tmp_path)
    link.unlink()
    (pics / "cat").symlink_to(pics / "bee", target_is_directory=True)
    with pytest.raises(UserError, match=r"cat is a link to a folder"):
        load(tmp_path)


def test_a_link_to_itself_is_a_file_that_cannot_be_read(pics: Path, tmp_path: Path) -> None:
    before = load(tmp_path)
    (pics / "ant" / "self.png").symlink_to("self.png")
    raw = load(tmp_path)
    assert raw.train.labels.tolist() == before.train.labels.tolist()
    assert raw.skipped[-1]["reason"] == "not a file, or a link to nothing"


def test_class_folders_may_nest(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / "pics" / "ant" / f"{i}.png")
        put(tmp_path / "pics" / "bee" / "sub" / "folder" / f"{i}.PNG")
    raw = load(tmp_path)
    assert raw.classes == ["ant", "bee"]
    assert raw.train.labels.tolist() == [0, 0, 1, 1]


def test_one_class(tmp_path: Path) -> None:
    put(tmp_path / "pics" / "only <b>" / "x.png")
    with pytest.raises(UserError, match=r"^only one class 'only <b>' in .*pics: .* at least two"):
        load(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder pics"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["nothing", "images"])
def test_no_classes(tmp_path: Path, content: str) -> None:
    (tmp_path / "pics").mkdir()
    if content == "images":
        put(tmp_path / "pics" / "x.png")
    with pytest.raises(UserError, match="no class folders"):
        load(tmp_path)


def test_test_classes_must_be_trained_on(tmp_path: Path) -> None:
    for name in ("train/ant", "train/bee", "test/ant", "test/cat"):
        put(tmp_path / "pics" / name / "x.png")
    with pytest.raises(UserError, match=r"test has a class 'cat' that .*train does not have"):
        load(tmp_path)


def fewshot(root: Path, **splits: str) -> Path:
    """A folder with two images of each class (a letter) of each split."""
    for split, names in splits.items():
        for name in names:
            for i in range(2):
                put(root / "pics" / split / name / f"{i}.png", (ord(name), 0, 0))
    return root / "pics"


def load_disjoint(root: Path) -> Raw:
    return imagefolder.load(Dataset(source="imagefolder", path="pics", disjoint=True), Paths(root))


def test_disjoint_classes_are_numbered_through(tmp_path: Path) -> None:
    fewshot(tmp_path, train="bd", val="ae", test="cf", other="x")
    raw = load_disjoint(tmp_path)
    assert raw.classes == list("abcdef")
    assert raw.val is not None and raw.test is not None
    found = {"train": raw.train, "val": raw.val, "test": raw.test}
    assert {name: images.labels.tolist() for name, images in found.items()} == {
        "train": [1, 1, 3, 3], "val": [0, 0, 4, 4], "test": [2, 2, 5, 5],
    }  # fmt: skip
    assert raw.val.read(2)[0, 0].tolist() == [ord("e"), 0, 0]
    assert raw.notes == ["beside train and val and test, not read: other"]


def test_disjoint_without_a_val_folder(tmp_path: Path) -> None:
    fewshot(tmp_path, train="bd", test="cf")
    raw = load_disjoint(tmp_path)
    assert (raw.classes, raw.val) == (list("bcdf"), None)
    with pytest.raises(UserError, match=r"a class 'c' that .*train does not have; .* set `disjoint: true`"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "bd", "val": "e", "test": "dc"}, r"class 'd' is in train and in test; disjoint: true says"),
        ({"train": "bd", "val": "ec", "test": "cf"}, r"class 'c' is in val and in test"),
        ({"train": "bd", "val": "ae"}, r"disjoint: true needs .*pics/train/<class>/\* and .*pics/test/<class>/\*"),
        ({"a": "bd", "b": "bd"}, r"disjoint: true needs .*pics/train/<class>/\*"),
        ({"train": "bd", "val": "", "test": "cf"}, r"val has no class folders; fill it, or remove it"),
    ],
)
def test_disjoint_that_is_not(tmp_path: Path, splits: dict[str, str], message: str) -> None:
    for split in splits:
        (fewshot(tmp_path, **splits) / split).mkdir(exist_ok=True, parents=True)
    with pytest.raises(UserError, match=message):
        load_disjoint(tmp_path)


def test_disjoint_needs_an_image_of_each_new_class(tmp_path: Path) -> None:
    pics = fewshot(tmp_path, train="bd", test="cf")
    for file in (pics / "test" / "f").iterdir():
        file.write_bytes(b"gone")
    with pytest.raises(UserError, match=r"class 'f' has no readable image in .*test/f"):
        load_disjoint(tmp_path)


def test_disjoint_is_for_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"disjoint: true is for folders of one's own \(imagefolder\), not for digits"):
        Dataset(source="digits", path="x", disjoint=True)


def test_a_class_without_test_images(tmp_path: Path) -> None:
    for name in ("train/ant", "train/bee", "test/bee"):
        put(tmp_path / "pics" / name / "x.png")
    raw = load(tmp_path)
    assert raw.test is not None
    assert raw.test.labels.tolist() == [1]


def test_empty_test_folder(tmp_path: Path) -> None:
    for name in ("train/ant", "train/bee"):
        put(tmp_path / "pics" / name / "x.png")
    (tmp_path / "pics" / "test" / "ant").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no readable image in .*test"):
        load(tmp_path)
    (tmp_path / "pics" / "test" / "ant").rmdir()
    with pytest.raises(UserError, match="test has no class folders"):
        load(tmp_path)


def stored(tmp_path: Path, image: Image.Image, suffix: str, **save: Any) -> np.ndarray:
    """An image after a trip through a file, as the source reads it."""
    image.save(tmp_path / f"x{suffix}", **save)
    with Image.open(tmp_path / f"x{suffix}") as back:
        return to_rgb(back)


def test_bilevel_and_grey(tmp_path: Path) -> None:
    assert stored(tmp_path, Image.fromarray(np.eye(2, dtype=bool)), ".png")[..., 0].tolist() == [[255, 0], [0, 255]]
    out = stored(tmp_path, Image.new("L", (3, 2), 77), ".png")
    assert (out.shape, out.dtype) == ((2, 3, 3), np.uint8)
    assert (out == 77).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256], [1000, 32768, 65535]], dtype=np.uint16)
    out = stored(tmp_path, Image.fromarray(values), suffix)
    assert out[..., 1].tolist() == [[0, 0, 1], [3, 128, 255]]
    assert (out == out[..., :1]).all()


def test_16_bits_big_endian_and_32_bit_integers(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 65535]])
    assert to_rgb(Image.fromarray(values.astype(">u2")))[0, :, 0].tolist() == [0, 3, 255]
    assert to_rgb(Image.fromarray(values.astype(np.int32)))[0, :, 0].tolist() == [0, 3, 255]
    for outside in (-1, 70_000):
        with pytest.raises(ValueError, match=r"outside 0\.\.65535"):
            to_rgb(Image.fromarray(np.array([[outside]], dtype=np.int32)))


def test_16_bit_colour_png(tmp_path: Path) -> None:
    import cv2

    values = np.array([[[0, 256, 65535], [32768, 1000, 511]]], dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), values[..., ::-1])
    with Image.open(tmp_path / "x.png") as image:
        assert to_rgb(image).tolist() == [[[0, 1, 255], [128, 3, 1]]]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = Image.fromarray(np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8))
    out = stored(tmp_path, rgba, ".png")
    assert out[0, :2].tolist() == [[200, 0, 0], [255, 255, 255]]
    assert np.abs(out[0, 2].astype(int) - 127).max() <= 1
    la = Image.fromarray(np.array([[[50, 255], [50, 0]]], dtype=np.uint8), mode="LA")
    assert stored(tmp_path, la, ".png")[0, :, 0].tolist() == [50, 255]


def test_palettes(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    assert stored(tmp_path, palette, ".png").tolist() == [[list(RED), list(BLUE)]]
    assert stored(tmp_path, palette, ".png", transparency=1).tolist() == [[list(RED), [255, 255, 255]]]
    assert stored(tmp_path, palette, ".gif").tolist() == [[list(RED), list(BLUE)]]
    assert to_rgb(palette.convert("PA")).tolist() == [[list(RED), list(BLUE)]]


def test_colour_key(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    assert stored(tmp_path, image, ".png", transparency=BLUE).tolist() == [[list(RED), [255, 255, 255]]]


def test_cmyk(tmp_path: Path) -> None:
    out = stored(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), ".jpg", quality=95)
    assert np.abs(out.astype(int) - [255, 0, 0]).max() <= 4  # no cyan, all magenta and yellow: red
    black = stored(tmp_path, Image.new("CMYK", (16, 16), (0, 0, 0, 255)), ".tif")
    assert (black == 0).all()


def test_exif_orientation(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8).repeat(8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: the left side of the file is the top of the picture
    out = stored(tmp_path, image, ".png", exif=exif)
    assert out.shape == (16, 8, 3)
    assert out[0, 0].tolist() == [255, 0, 0]
    assert out[-1, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize("mode", ["F", "LAB"])
def test_what_has_no_agreed_meaning_is_left_out(pics: Path, tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(pics / "ant" / "odd.tif")
    assert load(tmp_path).skipped == [
        {"file": "ant/odd.tif", "reason": f"mode {mode} is not supported; save it as 8-bit RGB"}
    ]
