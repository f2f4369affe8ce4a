"""The sources that ship: the real files where they are installed, a clear error where nothing can be had."""

import gzip
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miyagi.data.source import Raw
from miyagi.data.sources import digits, fashion_mnist
from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.registry import SOURCES
from miyagi.settings import Dataset

debian = pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")


def load(source: str, root: Path) -> Raw:
    raw: Raw = SOURCES.load(source).load(Dataset(source=source, path="x"), Paths(root))
    return raw


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """No name resolves and no connection is made; the list says what was asked for."""
    asked: list[Any] = []

    def refuse(*address: Any, **_: Any) -> Any:
        asked.append(address)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return asked


@debian
def test_fashion_mnist_on_the_real_files(tmp_path: Path) -> None:
    raw = load("fashion_mnist", tmp_path)
    assert raw.test is not None
    assert (len(raw.train.labels), len(raw.test.labels)) == (60_000, 10_000)
    assert Counter(raw.train.labels.tolist()) == dict.fromkeys(range(10), 6000)
    assert raw.classes[raw.train.labels[0]] == "Ankle boot"
    assert raw.train.labels[0] == 9
    image = raw.train.read(0)
    assert (image.shape, image.dtype) == ((28, 28, 3), np.uint8)
    assert (image == image[..., :1]).all()
    assert int(image[..., 0].sum()) == 76247  # known from the original file
    assert np.mean([raw.train.read(i).mean() / 255 for i in range(0, 60_000, 60)]) == pytest.approx(0.286, abs=0.01)


@debian
def test_fashion_mnist_in_the_raw_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[Any]) -> None:
    real = load("fashion_mnist", tmp_path)
    packed, unpacked = tmp_path / "a", tmp_path / "b"
    shutil.copytree(fashion_mnist.DEBIAN, packed / "data/raw/fashion_mnist")
    inside = unpacked / "data/raw/fashion_mnist/FashionMNIST/raw"  # what torchvision leaves behind
    inside.mkdir(parents=True)
    for name in fashion_mnist.FILES:
        (inside / name).with_suffix("").write_bytes(gzip.decompress((fashion_mnist.DEBIAN / name).read_bytes()))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    assert load("fashion_mnist", packed).digest == load("fashion_mnist", unpacked).digest == real.digest
    assert offline == []


@debian
def test_fashion_mnist_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "data/raw/fashion_mnist"
    shutil.copytree(fashion_mnist.DEBIAN, own)
    name = fashion_mnist.FILES[2]
    (own / name).write_bytes((own / name).read_bytes()[:-500])
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"cannot read .*{name}"):
        load("fashion_mnist", tmp_path)


def test_fashion_mnist_nowhere_names_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[Any]
) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        load("fashion_mnist", tmp_path)
    text = str(caught.value)
    assert "apt-get install dataset-fashion-mnist" in text
    assert str(tmp_path / "data/raw/fashion_mnist") in text
    assert "network" in text
    assert offline


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "stl10", "svhn"])
def test_no_network_and_no_data(tmp_path: Path, offline: list[Any], source: str) -> None:
    with pytest.raises(UserError) as caught:
        load(source, tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{source}: ")
    assert str(tmp_path / "data/raw" / source) in text
    assert "network" in text
    assert len(text.splitlines()) <= 2
    assert offline
    assert socket.getdefaulttimeout() is None


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import SVHN

    from miyagi.data import source

    monkeypatch.setattr(source, "SILENCE", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and then says nothing
        url = f"http://127.0.0.1:{server.getsockname()[1]}/train.mat"
        monkeypatch.setattr(SVHN, "split_list", {"train": [url, "train.mat", "0" * 32]})
        with pytest.raises(UserError, match=r"svhn: .*timed out"):
            load("svhn", tmp_path)


def test_digits_need_nothing(tmp_path: Path, offline: list[Any]) -> None:
    from sklearn.datasets import load_digits

    raw = digits.load(Dataset(source="digits", path="x"), Paths(tmp_path))
    assert raw.test is None
    assert len(raw.train.labels) == 1797
    assert raw.classes == list("0123456789")
    original = load_digits().images[5]
    assert raw.train.read(5)[..., 0].tolist() == np.rint(original / 16 * 255).astype(int).tolist()
    assert raw.train.read(5).max() == 255
    assert offline == []


def write_cifar(folder: Path, part: dict[str, np.ndarray], labels: dict[str, list[int]], names: list[str]) -> None:
    import pickle

    folder.mkdir(parents=True)
    for file, data in part.items():
        (folder / file).write_bytes(pickle.dumps({"data": data, "labels": labels[file]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def test_cifar10_reads_rows_of_planes_and_refuses_foreign_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[Any]
) -> None:
    from hashlib import md5

    from torchvision.datasets import CIFAR10

    files = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    rng = np.random.default_rng(0)
    data = {file: rng.integers(0, 256, (4, 3072), dtype=np.uint8) for file in files}
    folder = tmp_path / "data/raw/cifar10/cifar-10-batches-py"
    write_cifar(folder, data, {file: [3, 1, 2, 0] for file in files}, [f"c{i}" for i in range(4)])
    with pytest.raises(UserError, match="cifar10: "):  # not the published files: never unpickled
        load("cifar10", tmp_path)

    def signed(names: list[str]) -> list[list[str]]:
        return [[name, md5((folder / name).read_bytes()).hexdigest()] for name in names]

    monkeypatch.setattr(CIFAR10, "train_list", signed(files[:-1]))
    monkeypatch.setattr(CIFAR10, "test_list", signed(files[-1:]))
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": signed(["batches.meta"])[0][1]})
    raw = load("cifar10", tmp_path)
    assert raw.test is not None
    assert raw.classes == ["c0", "c1", "c2", "c3"]
    assert raw.train.labels.tolist() == [3, 1, 2, 0] * 5
    assert np.array_equal(raw.train.read(4), data[files[1]][0].reshape(3, 32, 32).transpose(1, 2, 0))
    assert np.array_equal(raw.test.read(1), data[files[-1]][1].reshape(3, 32, 32).transpose(1, 2, 0))


def test_svhn_reads_the_original_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[Any]) -> None:
    from hashlib import md5

    from scipy.io import savemat
    from torchvision.datasets import SVHN

    folder = tmp_path / "data/raw/svhn"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
    known = {}
    for split in ("train", "test"):
        file = folder / f"{split}_32x32.mat"
        savemat(file, {"X": pixels, "y": np.array([[10], [1], [9]], np.uint8)})
        known[split] = ["http://localhost/x", file.name, md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", known)
    raw = load("svhn", tmp_path)
    assert raw.train.labels.tolist() == [0, 1, 9]  # the files call the digit 0 "10"
    assert np.array_equal(raw.train.read(2), pixels[..., 2])
    assert offline == []


def test_stl10_reads_the_original_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[Any]) -> None:
    from hashlib import md5

    from torchvision.datasets import STL10

    folder = tmp_path / "data/raw/stl10/stl10_binary"
    folder.mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    lists = {}
    for split in ("train", "test"):
        # The files hold planes of columns: channel, x, y.
        (folder / f"{split}_X.bin").write_bytes(picture.transpose(0, 3, 2, 1).tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes([1, 10]))
        lists[split] = [[f"{split}_{k}.bin", md5((folder / f"{split}_{k}.bin").read_bytes()).hexdigest()] for k in "Xy"]
    monkeypatch.setattr(STL10, "train_list", lists["train"])
    monkeypatch.setattr(STL10, "test_list", lists["test"])
    raw = load("stl10", tmp_path)
    assert [raw.classes[label] for label in raw.train.labels] == ["airplane", "truck"]
    assert np.array_equal(raw.train.read(1), picture[1])
    assert offline == []


def test_listing_sources_imports_no_torch() -> None:
    code = (
        "import sys; import miyagi.data.sources.digits, miyagi.data.sources.imagefolder; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
