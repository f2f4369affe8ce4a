import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from miyagi.data.batch import Batch, DataInfo
from miyagi.data.rng import Key
from miyagi.nn.encoders.conv4 import Conv4, Settings


def pytest_collection_modifyitems(items):
    """What is marked `long` first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's 1,797 real digits: N x 3 x 32 x 32 uint8 and N labels."""
    found = load_digits()
    images = torch.from_numpy(found.images / 16).float()[:, None].expand(-1, 3, -1, -1)
    large = torch.nn.functional.interpolate(images, size=32, mode="bilinear")
    return (large * 255).round().to(torch.uint8), torch.from_numpy(found.target.astype(np.int64))


@pytest.fixture(scope="session")
def coloured(digits):
    """The digits in colours: a hue for each class, lighter or darker by image, on a background that goes with it."""
    images, labels = digits
    ink, paper = (torch.rand(10, 3, generator=torch.Generator().manual_seed(seed))[labels] for seed in (1, 2))
    shade = 0.7 + 0.3 * torch.rand(len(labels), 1, generator=torch.Generator().manual_seed(3))
    share = images[:, :1] / 255
    mixed = share * (ink * shade)[..., None, None] + (1 - share) * (0.4 * paper)[..., None, None]
    return (mixed * 255).round().to(torch.uint8), labels


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Conv4(Settings(width=16), (0.5,) * 3, (0.3,) * 3)


@pytest.fixture
def info():
    return DataInfo(n=256, classes=10, size=32, mean=(0.5,) * 3, std=(0.3,) * 3)


@pytest.fixture
def make_batch(digits, coloured):
    """Batches of augmented real digits: make_batch(method, recipes, epoch=0, n=128); each of 14 epochs has its own.

    A method that learns from colours gets coloured ones.
    """
    from miyagi.data.augment import augment
    from miyagi.registry import METHODS

    def make(method, recipes, epoch=0, n=128):
        name = type(method).__module__.rpartition(".")[2]
        needs_color = name in METHODS.entries and METHODS.settings(name).needs_color
        images, labels = coloured if needs_color else digits
        index, key = torch.arange(n) + 128 * (epoch % 14), Key(0, epoch)
        views = [
            augment(images[index], index, key, view.name, recipes[view.recipe % len(recipes)], view.size or 32)
            for view in method.views
        ]
        return Batch(views, index, labels[index], key)

    return make


@pytest.fixture
def fit(make_batch):
    """fit(method, recipes): the mean loss of the last 4 of 24 steps."""
    from miyagi.settings import Pretrain
    from miyagi.train.loop import optimizer

    def train(method, recipes, steps=24, n=64, lr=3e-3):
        optimiser = optimizer(method, Pretrain(lr=lr))
        losses = []
        for i in range(steps):
            loss = method(make_batch(method, recipes, i, n), 0.0)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        return sum(losses[-4:]) / 4

    return train


SMALL = {
    "dataset": "digits",
    "datasets": {
        "digits": {
            "source": "digits", "path": "x", "size": 32, "train_limit": 256, "val_limit": 64, "test_limit": 200,
        },
    },
    "runtime": {"threads": 2},
    "augment": {},
    "seeds": [0],
    "encoder": {"name": "conv4", "width": 8},
    "pretrain": {"epochs": 2, "batch_size": 64, "monitor": {"images": 64}},
    "experiments": {
        "random": {"method": "random"},
        "simclr": {"method": "simclr", "temperature": 0.2, "recipe": "simclr_small"},
    },
    "embed": {"tap_dimensions": 64, "batch_size": 96},
    "probe": {"protocols": ["knn", "linear"]},
    "finetune": {"experiments": ["random", "simclr"], "protocols": ["lowlabel"]},
    "evaluate": {"knn": {"k": [5, 20], "layers": ["encoder", "head", "conv1"]}, "linear": {"c": [0.01, 0.1]}, "lowlabel": {}},
}  # fmt: skip


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Paths of a small project with betons and resolved experiments; read it, or work on a copy of its root."""
    import shutil
    from pathlib import Path

    import yaml

    from miyagi import params
    from miyagi.paths import Paths
    from miyagi.stages import prepare, sweep

    paths = Paths(tmp_path_factory.mktemp("small"))
    paths.params.write_text(yaml.safe_dump(SMALL))
    shutil.copyfile(Path(__file__).parents[1] / "dvc.yaml", paths.dag)
    read = params.read(paths.params)
    prepare.run("digits", read.datasets["digits"], paths)
    for name in read.experiments:
        sweep.run(name, read, paths)
    return paths


@pytest.fixture(scope="session")
def trained(project, tmp_path_factory):
    """A copy of `project` in which both experiments are trained and embedded; read it, or work on a copy."""
    import shutil

    from miyagi.paths import Paths
    from miyagi.settings import Embed
    from miyagi.stages import embed, pretrain

    paths = Paths(tmp_path_factory.mktemp("trained") / "project")
    shutil.copytree(project.root, paths.root)
    for name in SMALL["experiments"]:
        pretrain.run(name, 0, paths)
        embed.run(name, 0, "digits", Embed(**SMALL["embed"]), paths)
    return paths


@pytest.fixture(scope="session")
def annotated(trained, tmp_path_factory):
    """A copy of `trained` with digits on canvases (boxes and masks) and spheres (normals); read it, or work on a copy."""
    import shutil

    import yaml
    from PIL import Image

    from miyagi import params
    from miyagi.paths import Paths
    from miyagi.stages import annotate

    paths = Paths(tmp_path_factory.mktemp("annotated") / "project")
    shutil.copytree(trained.root, paths.root)
    for i in range(24):
        picture, normals = sphere(i)
        for place, pixels in (("images", picture), ("normals", normals)):
            (paths.root / "spheres" / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(paths.root / "spheres" / place / f"{i}.png")
    settings = yaml.safe_load(paths.params.read_text())
    settings["dense"] = {
        "datasets": {
            "scenes": {
                "source": "scenes", "of": "digits", "path": "x", "shorter_side": 32, "objects": 2,
                "train_limit": 48, "val_limit": 12, "test_limit": 16,
            },
            "spheres": {"source": "normals", "path": "spheres", "shorter_side": 32},
        },
        "experiments": ["random", "simclr"], "protocols": ["segmentation", "detection", "surface_normals"],
    }  # fmt: skip
    short = {
        "finetune": {"lr": [0.01], "steps": [6]}, "scratch": {"lr": [0.003, 0.01], "steps": [6]},
        "optimization": {"batch_size": 8, "looks": 1},
    }  # fmt: skip
    settings["evaluate"] |= dict.fromkeys(settings["dense"]["protocols"], short)
    paths.params.write_text(yaml.safe_dump(settings))
    for name, own in params.read(paths.params).dense.datasets.items():
        annotate.run(name, own, paths)
    return paths


def sphere(seed):
    """A ball lit from the upper left, 32 x 32, and its normals (x to the right, y down, z to the eye); black around it."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:32, :32]
    radius, (y, x) = rng.uniform(8, 14), rng.uniform(12, 20, 2)
    dx, dy = (column - x) / radius, (row - y) / radius
    inside = dx**2 + dy**2 < 0.95
    n = np.stack([dx, dy, np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))], 2)
    light = np.clip(n @ np.array([-0.5, -0.5, 0.7]), 0, 1)
    picture = np.repeat(np.where(inside, 60 + 180 * light, 20)[..., None], 3, 2).astype(np.uint8)
    return picture, np.where(inside[..., None], np.rint(127.5 * (n + 1)), 0).astype(np.uint8)


@pytest.fixture
def copied(tmp_path):
    """copied(paths): the project of `paths` in a folder of its own."""
    import shutil

    from miyagi.paths import Paths

    def copy(paths, name="copy"):
        shutil.copytree(paths.root, tmp_path / name)
        return Paths(tmp_path / name)

    return copy


@pytest.fixture
def write_bank(tmp_path):
    """write_bank({"train.encoder": N x D, "train.labels": N, ...}) -> the file, as the embed stage writes it."""
    from safetensors.numpy import save_file

    from miyagi.files import canonical

    def write(arrays, name="bank.safetensors", **stamp):
        def kind(key, value):
            if key.endswith(".labels"):
                return np.int64 if np.ndim(value) == 1 else np.uint8  # several labels an image are multi-hot
            return np.float32

        arrays = {key: np.ascontiguousarray(value, kind(key, value)) for key, value in arrays.items()}
        stamp = {
            "dataset": "digits",
            "data": "0123456789abcdef",
            "threads": 1,
            "pretrained_on": "fashion_mnist",
        } | stamp
        save_file(arrays, str(tmp_path / name), metadata={"miyagi": canonical(stamp)})
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def pixels(digits):
    """Real digits as a bank: 8 x 8 pixels as features, 600 for train, 200 for val, 300 for test."""
    images, labels = digits
    x = torch.nn.functional.adaptive_avg_pool2d(images[:, :1].float() / 255, 8).flatten(1).numpy()
    found = {}
    for split, rows in (("train", slice(0, 600)), ("val", slice(600, 800)), ("test", slice(800, 1100))):
        found |= {f"{split}.encoder": x[rows], f"{split}.conv1": x[rows, ::2], f"{split}.labels": labels.numpy()[rows]}
    return found
