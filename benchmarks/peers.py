"""lightly and torchvision as their own documentation uses them.

lightly: its example of SimCLR on CIFAR-10 (LightlyDataset, SimCLRTransform, DataLoader, SimCLRProjectionHead,
NTXentLoss, one forward pass a view) with the optimiser of its CIFAR-10 benchmark (SGD with momentum and a cosine over
the epochs), and a plain conv4 in place of its ResNet-18.
torchvision: ImageFolder and the v2 transforms on uint8 tensors, in the order that its documentation recommends.
"""

import random
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from miyagi.errors import UserError
from miyagi.metrics.knn import knn
from miyagi.params import views
from miyagi.settings import ViewRecipe

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HEAD = {"hidden_dim": 512, "output_dim": 128}  # lightly's example


def recipe(name: str) -> ViewRecipe:
    """The one view recipe of a symmetric recipe.

    Raises:
        UserError: it has what SimCLRTransform cannot do, so the two sides would not do the same work.
    """
    view, *others = views(name, {}, "data_path.recipes")
    crop, jitter = view.crop, view.jitter
    plain = crop and jitter and crop.scale[1] == 1 and crop.ratio == (3 / 4, 4 / 3) and not (view.pad or view.solarize)
    if others or not plain:
        raise UserError(f"data_path.recipes: lightly's SimCLRTransform cannot do '{name}'; take simclr or simclr_small")
    return view


def lightly_transform(view: ViewRecipe, size: int) -> Any:
    """SimCLRTransform with a recipe's strengths: two views of a PIL image."""
    from lightly.transforms.simclr_transform import SimCLRTransform

    assert view.crop is not None
    assert view.jitter is not None
    return SimCLRTransform(
        input_size=size,
        cj_prob=view.jitter.p,
        cj_strength=1.0,
        cj_bright=view.jitter.brightness,
        cj_contrast=view.jitter.contrast,
        cj_sat=view.jitter.saturation,
        cj_hue=view.jitter.hue,
        min_scale=view.crop.scale[0],
        random_gray_scale=view.gray,
        gaussian_blur=view.blur.p if view.blur else 0.0,
        sigmas=view.blur.sigma if view.blur else (0.1, 2.0),
        hf_prob=view.flip,
    )


class TorchvisionTransform:
    """The same operations by torchvision's v2 transforms: two views of a PIL image."""

    def __init__(self, view: ViewRecipe, size: int) -> None:
        from torchvision.transforms import v2

        assert view.crop is not None
        assert view.jitter is not None
        jitter = v2.ColorJitter(view.jitter.brightness, view.jitter.contrast, view.jitter.saturation, view.jitter.hue)
        kernel = 2 * max(1, round(size * 0.1) // 2) + 1  # a tenth of the side, SimCLR's
        self.transform = v2.Compose([
            v2.ToImage(),
            v2.RandomResizedCrop(size, scale=view.crop.scale, ratio=view.crop.ratio, antialias=True),
            v2.RandomHorizontalFlip(view.flip),
            v2.RandomApply([jitter], p=view.jitter.p),
            v2.RandomGrayscale(view.gray),
            *([v2.RandomApply([v2.GaussianBlur(kernel, view.blur.sigma)], p=view.blur.p)] if view.blur else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(**IMAGENET),
        ])  # fmt: skip

    def __call__(self, image: Any) -> list[Tensor]:
        return [self.transform(image), self.transform(image)]


def loader(
    system: str, train: str, view: ViewRecipe, *, size: int, batch: int, workers: int, images: int | None = None
) -> DataLoader[Any]:
    """Shuffled batches ((first views, second views), labels, ...) of the files in a folder of class folders.

    Args:
        system: "lightly" or "torchvision".
        train: the folder.
        view: the recipe.
        size: side of the views, in pixels.
        batch: images a batch; a smaller last one is dropped.
        workers: processes that decode and augment; kept between epochs.
        images: only so many, at random; None: all.
    """
    if system == "lightly":
        from lightly.data import LightlyDataset

        data: Any = LightlyDataset(train, transform=lightly_transform(view, size))
    else:
        from torchvision.datasets import ImageFolder

        data = ImageFolder(train, transform=TorchvisionTransform(view, size))
    if images is not None and images < len(data):
        data = Subset(data, torch.randperm(len(data))[:images].tolist())
    return DataLoader(
        data, batch_size=min(batch, len(data)), shuffle=True, drop_last=True,
        num_workers=workers, persistent_workers=workers > 0,
    )  # fmt: skip


def conv4(width: int) -> nn.Sequential:
    """Conv-4 as a PyTorch user writes it: N x 3 x 32 x 32 to N x (4 width)."""
    layers: list[nn.Module] = []
    for channels in (3, width, width, width):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]  # fmt: skip
    return nn.Sequential(*layers)


class SimCLR(nn.Module):
    """The module of lightly's example."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(width, **HEAD)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return z


def model(seed: int, width: int, size: int) -> SimCLR:
    """A freshly initialised SimCLR; every generator that lightly may draw from is seeded."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return SimCLR(conv4(width), width * (size // 16) ** 2)


def train(
    model: SimCLR,
    batches: Iterable[Any],
    epochs: int,
    *,
    temperature: float,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> Iterator[float]:
    """Train, giving the seconds of each epoch when it ends; what happens between two epochs is not counted."""
    from lightly.loss import NTXentLoss

    criterion = NTXentLoss(temperature=temperature)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        model.train()
        start = time.perf_counter()
        total = torch.zeros(())
        for batch in batches:
            first, second = batch[0]
            loss = criterion(model(first), model(second))
            total += loss.detach()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()
        if not torch.isfinite(total):
            raise UserError(f"lightly's loss is {float(total)}: lower pretraining.lr")
        yield time.perf_counter() - start


@torch.inference_mode()
def features(model: SimCLR, folder: str, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """The backbone's features of unaugmented images, N x D, and their labels, N; as lightly's benchmark takes them."""
    from lightly.data import LightlyDataset
    from lightly.transforms.torchvision_v2_compatibility import torchvision_transforms as transforms

    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(**IMAGENET)])
    model.eval()
    found, labels = [], []
    for images, label, _ in DataLoader(LightlyDataset(folder, transform=plain), batch_size=500, num_workers=workers):
        found.append(model.backbone(images).flatten(start_dim=1).numpy())
        labels.append(label.numpy())
    return np.concatenate(found), np.concatenate(labels)


def accuracy(model: SimCLR, train: str, test: str, k: int, temperature: float, workers: int) -> float:
    """kNN accuracy in percent of the test images among the training images, by the function that ours uses."""
    bank, labels = features(model, train, workers)
    queries, truth = features(model, test, workers)
    return 100 * float((knn(bank, labels, queries, min(k, len(bank)), temperature) == truth).mean())
