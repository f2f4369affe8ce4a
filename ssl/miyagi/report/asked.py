"""What the network was asked: pictures that the stage `pretrain` drew, by the training's own code."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from miyagi.report.figures import Image


@dataclass(frozen=True)
class Asked:
    """Training images, a row each: as stored, then what the method made of them and what it answered.

    Attributes:
        columns: their names.
        rows: one picture a column, H x W x 3 uint8.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Image]]


def read(path: Path) -> Asked:
    """What train/asked.py wrote; no columns and no rows for an experiment that trains nothing.

    Raises:
        OSError, safetensors.SafetensorError, KeyError, ValueError: the file cannot be read, or is not such a file.
    """
    from safetensors import safe_open

    with safe_open(path, "numpy") as tensors:
        columns = [str(name) for name in json.loads((tensors.metadata() or {})["miyagi"])["columns"]]
        pictures = [tensors.get_tensor(name) for name in columns]
    if any(images.ndim != 4 or images.dtype != "uint8" or images.shape[3] != 3 for images in pictures):
        raise ValueError("a column is no N x H x W x 3 bytes")
    return Asked(columns, list(zip(*pictures, strict=True)))
