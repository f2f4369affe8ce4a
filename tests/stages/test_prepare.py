"""The stage on real digits and on folders: equal bytes, an honest manifest, and nothing half done."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miyagi.data.betons import Beton, fit, read_images
from miyagi.errors import UserError
from miyagi.files import file_digest
from miyagi.paths import SPLITS, Paths
from miyagi.settings import Dataset
from miyagi.stages import prepare


def outs(paths: Paths, key: str) -> list[Path]:
    return [*(paths.beton(key, split) for split in SPLITS), paths.manifest(key)]


def manifest(paths: Paths, key: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(paths.manifest(key).read_text(encoding="utf-8"))
    return loaded


def digits(**changes: Any) -> Dataset:
    return Dataset(**{"source": "digits", "path": "x", "size": 16, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten images of different sizes; reds and greens."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(["<script>alert('x')</script>".replace("/", "_"), "ňu 猫"]):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.zeros((20 + i, 30 - i, 3), np.uint8)
            pixels[..., label] = rng.integers(100, 256)
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{i}.png")
    return tmp_path


def test_two_runs_give_equal_bytes_anywhere(tmp_path: Path) -> None:
    both = [Paths(tmp_path / name) for name in ("a", "some other place")]
    for paths in both:
        metrics = prepare.run("mine", digits(), paths)
    prepare.run("mine", digits(), both[0])  # again, over what is there
    assert [file.read_bytes() for file in outs(both[0], "mine")] == [f.read_bytes() for f in outs(both[1], "mine")]
    # 20 % of 1,797 is 359; 10 % of the 1,438 left is 144.
    assert metrics == {
        "train_images": 1294.0,
        "val_images": 144.0,
        "test_images": 359.0,
        "classes": 10.0,
        "skipped_files": 0.0,
    }
    text = both[0].manifest("mine").read_text()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text


def test_manifest_says_what_the_betons_hold(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    settings = digits(train_limit=100, val_limit=20, test_limit=30)
    prepare.run("mine", settings, paths)
    said = manifest(paths, "mine")
    images, labels = read_images(paths.beton("mine", "train"))
    assert images.shape == (100, 16, 16, 3)
    assert said["mean"] == pytest.approx((images / 255).mean((0, 1, 2)).tolist(), rel=1e-12)
    assert said["std"] == pytest.approx((images / 255).std((0, 1, 2)).tolist(), rel=1e-9)
    assert said["color"] is False
    assert said["counts"]["train"] == {"total": 100, "per_class": np.bincount(labels).tolist()}
    assert [said["counts"][split]["total"] for split in SPLITS] == [100, 20, 30]
    assert said["betons"] == {split: file_digest(paths.beton("mine", split)) for split in SPLITS}
    assert (said["dataset"], said["source"], said["size"]) == ("mine", "digits", 16)
    assert said["settings"] == settings.model_dump(mode="json", exclude={"path", "group"})


def test_labels_and_pictures_stay_together(folder: Path) -> None:
    paths = Paths(folder)
    prepare.run("mine", Dataset(source="imagefolder", path="pics", size=8), paths)
    said = manifest(paths, "mine")
    assert said["classes"] == ["<script>alert('x')<_script>", "ňu 猫"]
    assert said["color"] is True
    for split, total in zip(SPLITS, (14, 2, 4), strict=True):
        images, labels = read_images(paths.beton("mine", split))
        assert len(labels) == said["counts"][split]["total"] == total
        assert np.array_equal(images.reshape(total, -1, 3).sum(1).argmax(1), labels)  # class 0 is red, class 1 green


def test_one_damaged_image_warns_and_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pics" / "ňu 猫" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    metrics = prepare.run("mine", Dataset(source="imagefolder", path="pics", size=8), Paths(folder))
    assert metrics["skipped_files"] == 1
    skipped = manifest(Paths(folder), "mine")["skipped"]
    assert [entry["file"] for entry in skipped] == ["ňu 猫/3.png"]
    assert skipped[0]["reason"]
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if "ffcv" not in line)
    assert "ňu 猫/3.png" in warning


SHAPES = {"source": "imagefolder", "path": "pics", "size": 16, "shorter_side": 24}


def test_images_in_their_own_shape(folder: Path) -> None:
    """The folder's images are (20 + i) x (30 - i) pixels: the shorter side is 20 to 25."""
    both = [Paths(folder), Paths(folder / "again")]
    (folder / "again").mkdir()
    (folder / "again" / "pics").symlink_to(folder / "pics")
    settings = Dataset(**SHAPES, jpeg_quality=None)
    for paths in both:
        prepare.run("mine", settings, paths)
    assert [file.read_bytes() for file in outs(both[0], "mine")] == [f.read_bytes() for f in outs(both[1], "mine")]
    said, beton = manifest(both[0], "mine"), Beton(both[0].beton("mine", "train"))
    assert said["size"] == 16  # what an encoder is shown
    assert (said["settings"]["shorter_side"], said["settings"]["jpeg_quality"]) == (24, None)
    possible = {fit(np.zeros((20 + i, 30 - i, 3), np.uint8), 24).shape[:2] for i in range(10)}
    found = {beton[i].shape[:2] for i in range(len(beton))}
    assert found <= possible
    assert len(found) > 3
    pixels = np.concatenate([beton[i].reshape(-1, 3) for i in range(len(beton))]) / 255
    assert said["mean"] == pytest.approx(pixels.mean(0).tolist(), rel=1e-12)
    assert said["std"] == pytest.approx(pixels.std(0).tolist(), rel=1e-9)
    assert said["color"] is True


def test_large_images_become_jpegs(tmp_path: Path) -> None:
    """scikit-learn's two photographs and their halves; grey stays grey."""
    from sklearn.datasets import load_sample_image

    for name in ("china", "flower"):
        (tmp_path / "pics" / name).mkdir(parents=True)
        grey = Image.fromarray(load_sample_image(f"{name}.jpg")).convert("L")
        for i in range(4):
            grey.crop((80 * i, 0, 80 * i + 320, 427 - 20 * i)).save(tmp_path / "pics" / name / f"{i}.png")
    sizes = {}
    for quality in (None, 90, 30):
        paths = Paths(tmp_path / str(quality))
        settings = Dataset(
            source="imagefolder", path=str(tmp_path / "pics"), size=64, shorter_side=128, jpeg_quality=quality
        )
        prepare.run("mine", settings, paths)
        beton = Beton(paths.beton("mine", "train"))
        sizes[quality] = int(beton._places["size"].sum())
        assert {min(beton[i].shape[:2]) for i in range(len(beton))} == {128}
        assert manifest(paths, "mine")["color"] is False
    assert sizes[30] < 0.5 * sizes[90] < 0.2 * sizes[None]


def test_shorter_side_is_not_below_size() -> None:
    with pytest.raises(ValueError, match="shorter_side 12 is below size 16"):
        Dataset(**{**SHAPES, "shorter_side": 12})


def test_a_changed_image_changes_the_digests(folder: Path) -> None:
    paths, settings = Paths(folder), Dataset(source="imagefolder", path="pics", size=8)
    prepare.run("mine", settings, paths)
    before = manifest(paths, "mine")
    for i in range(10):
        Image.new("RGB", (20, 20), (0, 77, 0)).save(folder / "pics" / "ňu 猫" / f"{i}.png")
    prepare.run("mine", settings, paths)
    after = manifest(paths, "mine")
    assert before["source_digest"] != after["source_digest"]
    assert all(before["betons"][split] != after["betons"][split] for split in SPLITS)


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.manifest("mine").parent.mkdir(parents=True)
    (paths.manifest("mine").parent / ".val.beton.4711.tmp").write_bytes(b"half")
    prepare.run("mine", digits(), paths)
    assert sorted(paths.manifest("mine").parent.iterdir()) == sorted(outs(paths, "mine"))


def test_impossible_limit_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^datasets\.mine\.train_limit: 5 is fewer than the 10 classes"):
        prepare.run("mine", digits(train_limit=5), Paths(tmp_path))
    assert not any(file.exists() for file in outs(Paths(tmp_path), "mine"))


def test_unknown_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets\.mine\.source: .*did you mean 'digits'"):
        prepare.run("mine", digits(source="digit"), Paths(tmp_path))


@pytest.mark.parametrize("blocked", ["data", "data/betons", "data/betons/mine"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        prepare.run("mine", digits(), Paths(tmp_path))
    assert (tmp_path / blocked).read_text() == "in the way"


def test_an_image_that_vanishes_leaves_no_outs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, settings = Paths(folder), Dataset(source="imagefolder", path="pics", size=8)
    prepare.run("mine", settings, paths)
    write = prepare.write_beton

    def later(path: Path, images: Any, labels: np.ndarray) -> None:
        if path.name == "val.beton":  # after train.beton is whole
            for file in (folder / "pics").rglob("*.png"):
                file.unlink()
        write(path, images, labels)

    monkeypatch.setattr(prepare, "write_beton", later)
    with pytest.raises(UserError, match="changed while it was being read"):
        prepare.run("mine", settings, paths)
    assert list(paths.manifest("mine").parent.iterdir()) == []


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.settings import Dataset
from miyagi.stages import prepare
import sklearn.datasets
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    prepare.run("mine", Dataset(source="digits", path="x", size=64), Paths(Path(sys.argv[1])))
except UserError as error:
    print(error)
    sys.exit(2)
"""


def test_full_disk_leaves_no_outs(tmp_path: Path) -> None:
    # The 1,294 images of train, written first, take three pages of 8 MiB.
    old = tmp_path / "data" / "betons" / "mine"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text("{}")
    (old / "test.beton").write_text("of an earlier run")
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path), str(17 << 20)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "train.beton" in done.stdout
    assert list(old.iterdir()) == []


def test_classes_that_are_disjoint_keep_their_splits(folder: Path) -> None:
    for split, names in (("train", "bd"), ("val", "ae"), ("test", "cf")):
        for name in names:
            (folder / "few" / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = np.full((20, 20, 3), 30 * "abcdef".index(name) + i, np.uint8)
                Image.fromarray(pixels).save(folder / "few" / split / name / f"{i}.png")
    settings = Dataset(source="imagefolder", path="few", size=16, disjoint=True)
    prepare.run("few", settings, Paths(folder))
    found = manifest(Paths(folder), "few")
    assert found["classes"] == list("abcdef")
    per_class = {split: found["counts"][split]["per_class"] for split in SPLITS}
    assert per_class == {"train": [0, 4, 0, 4, 0, 0], "val": [4, 0, 0, 0, 4, 0], "test": [0, 0, 4, 0, 0, 4]}
    for split in SPLITS:
        images, labels = read_images(Paths(folder).beton("few", split))
        assert np.array_equal(images[:, 0, 0, 0] // 30, labels)
