"""What the network was asked, as pictures: a few training images and what the method shows of them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from miyagi.data.batch import Batch
from miyagi.data.loader import Loader
from miyagi.files import canonical, replacing
from miyagi.methods.base import Method
from miyagi.settings import MethodSettings
from miyagi.train.loop import Trainer

IMAGES, DRAWS = 6, 2


def asked(trainer: Trainer, train: Path) -> dict[str, np.ndarray]:
    """The first images of the training split, see `shown`.

    Args:
        trainer: after its training, whose seed is the draws'; draw d has the key of epoch d.
        train: the training beton.
    """
    loader = Loader(train, IMAGES, limit=IMAGES, size=trainer.size)
    (raw,) = loader()
    return shown(trainer.method, raw.image, [next(trainer.batches(draw, loader)) for draw in range(DRAWS)])


@torch.no_grad()
def shown(method: Method[MethodSettings], stored: Tensor, draws: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Images as they are stored, and the columns of `Method.show` for each draw.

    Args:
        method: its mode is as it was afterwards.
        stored: N x 3 x S x S uint8.
        draws: batches of these images.

    Returns:
        The name of a column -> N x S x S x 3 uint8, in the order in which they should be shown.
    """
    training = method.training
    method.eval()
    columns = {"stored": stored.permute(0, 2, 3, 1).numpy()}
    for number, batch in enumerate(draws, 1):
        for name, images in method.show(batch).items():
            bytes_ = (images.clamp(0, 1) * 255).round().to(torch.uint8)
            columns[f"{name}, draw {number}"] = bytes_.permute(0, 2, 3, 1).cpu().numpy()
    method.train(training)
    return columns


def save(columns: dict[str, np.ndarray], file: Path) -> None:
    """Write the columns. Their order is in the one metadata key: the format sorts tensors by name."""
    tensors = {name: np.ascontiguousarray(images) for name, images in columns.items()}
    with replacing(file) as temporary:
        save_file(tensors, str(temporary), metadata={"miyagi": canonical({"columns": list(columns)})})
