"""What is written is what is read, twice the same bytes, and never half a file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miyagi.data.betons import ASPECT, PAGE, RAW_BYTES, Beton, fit, read_images, square, write_beton
from miyagi.errors import UserError


def pictures(n: int, height: int = 32, width: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8), rng.integers(0, 10, n)


@pytest.mark.parametrize("n", [1, 7, PAGE // 3072, PAGE // 3072 + 1])
def test_round_trip(tmp_path: Path, n: int) -> None:
    images, labels = pictures(n)
    write_beton(tmp_path / "x.beton", images, labels)
    back, back_labels = read_images(tmp_path / "x.beton")
    assert np.array_equal(back, images)
    assert np.array_equal(back_labels, labels)
    assert back_labels.dtype == np.int64
    assert [path.name for path in tmp_path.iterdir()] == ["x.beton"]


def test_chosen_indices_in_their_order(tmp_path: Path) -> None:
    images, labels = pictures(9, 8, 12)
    write_beton(tmp_path / "x.beton", images, labels)
    back, back_labels = read_images(tmp_path / "x.beton", [5, 0, 5])
    assert np.array_equal(back, images[[5, 0, 5]])
    assert np.array_equal(back_labels, labels[[5, 0, 5]])


def test_two_writes_agree_byte_for_byte_and_with_ffcv(tmp_path: Path) -> None:
    images, labels = pictures(3000)
    for name in ("a", "b"):
        write_beton(tmp_path / name, images, labels)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    rows = [(image, int(label), index) for index, (image, label) in enumerate(zip(images, labels, strict=True))]
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField(), "index": IntField()}
    DatasetWriter(str(tmp_path / "theirs"), fields, num_workers=1).from_indexed_dataset(rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_two_writes_of_jpegs_agree_byte_for_byte_and_with_ffcv(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [(80, 100), (64, 64), (120, 70), (16, 200), (90, 90)] * 60  # 64 x 64 and 16 x 200 stay raw
    images = [
        np.kron(rng.integers(0, 256, (h // 8, w // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        for h, w in shapes
    ]
    labels = rng.integers(0, 9, len(images))
    for name in ("a", "b"):
        write_beton(tmp_path / name, images, labels, largest=3 * 120 * 120, jpeg_quality=80)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    rows = [(image, int(label), index) for index, (image, label) in enumerate(zip(images, labels, strict=True))]
    image = RGBImageField(write_mode="smart", smart_threshold=RAW_BYTES, jpeg_quality=80)
    fields = {"image": image, "label": IntField(), "index": IntField()}
    DatasetWriter(str(tmp_path / "theirs"), fields, num_workers=1).from_indexed_dataset(rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_an_image_larger_than_a_default_page(tmp_path: Path) -> None:
    images, labels = pictures(2, 1700, 1701)
    assert images[0].nbytes > PAGE
    write_beton(tmp_path / "x.beton", images, labels)
    assert np.array_equal(read_images(tmp_path / "x.beton")[0], images)


def test_failure_while_reading_propagates_and_leaves_nothing(tmp_path: Path) -> None:
    images, labels = pictures(20)

    class Broken:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, position: int, /) -> np.ndarray:
            if position == 13:
                raise UserError("image 13 vanished")
            return np.asarray(images[position])

    with pytest.raises(UserError, match="image 13 vanished"):
        write_beton(tmp_path / "x.beton", Broken(), labels)
    assert list(tmp_path.iterdir()) == []


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from miyagi.data.betons import write_beton
from miyagi.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
images = np.zeros((6000, 32, 32, 3), np.uint8)
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_beton(Path(sys.argv[1]), images, np.zeros(6000, int))
        print("whole", Path(sys.argv[1]).stat().st_size)
    except UserError as error:
        print(error, sorted(Path(sys.argv[1]).parent.iterdir()))
"""


def test_full_disk(tmp_path: Path) -> None:
    # 6,000 images of 3 KiB fill three pages of 8 MiB behind one that holds header and metadata; the table of 24 bytes
    # an image is last. The limits cut header, metadata, first page, last page and table; the last one cuts nothing.
    target = tmp_path / "betons" / "x.beton"
    whole = (32 << 20) + 6000 * 24
    limits = [2000, 100_000, (9 << 20) + 5, (32 << 20) - 7, (32 << 20) + 100, whole - 1, whole]
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(target), *map(str, limits)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *failures, success = done.stdout.splitlines()
    assert len(failures) == 6
    for line in failures:
        assert line.startswith(f"cannot write {target}")
        assert line.endswith("[]")  # nothing is left in the folder
    assert success == f"whole {whole}"


def test_silent_short_write_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = pictures(10)
    import miyagi.data.betons as betons

    real = betons._verify

    def truncated(path: Path, written: Path, writer: object) -> None:
        with written.open("rb+") as handle:
            handle.truncate(written.stat().st_size - 24)
        real(path, written, writer)

    monkeypatch.setattr(betons, "_verify", truncated)
    with pytest.raises(UserError, match="the disk kept less than was written"):
        write_beton(tmp_path / "x.beton", images, labels)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "betons").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_beton(tmp_path / "betons" / "x.beton", *pictures(3))


def test_images_must_be_of_one_size(tmp_path: Path) -> None:
    images = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"image 1 is \(8, 9, 3\)"):
        write_beton(tmp_path / "x.beton", images, np.zeros(2, int))


def test_no_image_may_be_larger_than_was_said(tmp_path: Path) -> None:
    images = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]
    with pytest.raises(ValueError, match="image 1 has 216 bytes, more than 192"):
        write_beton(tmp_path / "x.beton", images, np.zeros(2, int), largest=192)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign"])
def test_reading_a_broken_beton(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "x.beton"
    write_beton(file, *pictures(5))
    if damage == "missing":
        file.unlink()
    else:
        whole = file.read_bytes()
        file.write_bytes({"empty": b"", "cut": whole[:-100], "foreign": b"not a beton" * 1000}[damage])
    with pytest.raises(UserError, match=r"cannot read .*x\.beton"):
        Beton(file)


def test_square_takes_the_centre(tmp_path: Path) -> None:
    image = np.zeros((4, 10, 3), np.uint8)
    image[:, 3:7] = 200  # the centred 4 x 4 square
    assert (square(image, 4) == 200).all()
    assert (square(image.transpose(1, 0, 2), 8) == 200).all()


def test_square_resizes_as_pillow_does_and_keeps_grey_grey() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    large = square(np.repeat(grey[..., None], 3, axis=-1), 32)
    expected = np.asarray(Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(large, np.repeat(expected[..., None], 3, axis=-1))
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    small = square(np.repeat(checks[..., None], 3, axis=-1).astype(np.uint8), 16)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() <= 8  # antialiased: the mean, not one of the two


@pytest.mark.parametrize(
    ("shape", "fitted"),
    [
        ((375, 500), (256, 341)),  # the shorter side is 256 and the longer one follows
        ((500, 375), (341, 256)),
        ((200, 300), (200, 300)),  # never enlarged
        ((256, 256), (256, 256)),
        ((1, 5000), (1, ASPECT)),  # cropped to the centre
        ((3000, 300), (4 * 256, 256)),
    ],
)
def test_fit(shape: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit(np.zeros((*shape, 3), np.uint8), 256).shape == (*fitted, 3)


def test_fit_takes_the_centre_and_resizes_as_pillow_does() -> None:
    image = np.zeros((10, 100, 3), np.uint8)
    image[:, 30:70] = np.random.default_rng(0).integers(1, 256, (10, 40, 3))
    assert np.array_equal(fit(image, 10), image[:, 30:70])
    expected = Image.fromarray(image[:, 30:70]).resize((20, 5), Image.Resampling.BICUBIC)
    assert np.array_equal(fit(image, 5), np.asarray(expected))


def test_torch_threads_are_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; import numpy as np; torch.set_num_threads(2)\n"
        "from miyagi.data.betons import read_images, write_beton\n"
        "write_beton(Path(sys.argv[1]), np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, int))\n"
        "read_images(Path(sys.argv[1])); print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2", done.stderr
