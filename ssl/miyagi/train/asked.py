"""What the network was asked, as pictures: a few training images and what the method shows of them."""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from miyagi.data.loader import Loader
from miyagi.files import canonical, replacing
from miyagi.train.loop import Trainer

IMAGES, DRAWS = 6, 2


@torch.no_grad()
def asked(trainer: Trainer, train: Path) -> dict[str, np.ndarray]:
    """The first images of the training split as they are stored, and the columns of `Method.show` for each draw.

    Args:
        trainer: after its training, whose seed is the draws'; draw d has the key of epoch d.
        train: the training beton.

    Returns:
        The name of a column -> N x S x S x 3 uint8, in the order in which they should be shown.
    """
    loader, training = Loader(train, IMAGES, limit=IMAGES, size=trainer.size), trainer.method.training
    trainer.method.eval()
    (raw,) = loader()
    columns = {"stored": raw.image.permute(0, 2, 3, 1).numpy()}
    for draw in range(DRAWS):
        (batch,) = trainer.batches(draw, loader)
        for name, images in trainer.method.show(batch).items():
            bytes_ = (images.clamp(0, 1) * 255).round().to(torch.uint8)
            columns[f"{name}, draw {draw + 1}"] = bytes_.permute(0, 2, 3, 1).cpu().numpy()
    trainer.method.train(training)
    return columns


def save(columns: dict[str, np.ndarray], file: Path) -> None:
    """Write the columns. Their order is in the one metadata key: the format sorts tensors by name."""
    tensors = {name: np.ascontiguousarray(images) for name, images in columns.items()}
    with replacing(file) as temporary:
        save_file(tensors, str(temporary), metadata={"miyagi": canonical({"columns": list(columns)})})
