"""The annotations of one split, `D/{train,val,test}.annotations.safetensors`: equal bytes for equal annotations.

Pictures differ in size and in the number of their objects, so all maps lie one after the other in one tensor, and all
boxes in another; a picture's part is read by itself.

    sizes       N x 2 int64       height and width
    boxes       M x 4 float32     x1, y1, x2, y2; with labels (M int64), difficult (M uint8), offsets (N + 1 int64)
    masks       P uint8           row by row, picture by picture
    normals     P x 3 uint8       likewise
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from miyagi.data.scene import Scene
from miyagi.errors import UserError
from miyagi.files import canonical, replacing

OBJECTS = ("boxes", "labels", "difficult", "offsets")


def write_annotations(path: Path, scenes: Iterable[Scene], kinds: Iterable[str]) -> None:
    """Write what is known of a split's pictures, in order.

    Args:
        path: the file.
        scenes: read once; the pictures themselves are not kept.
        kinds: which annotations every scene has.
    """
    sizes: list[tuple[int, ...]] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("boxes", "labels", "difficult", "masks", "normals")}
    for scene in scenes:
        sizes.append(scene.image.shape[:2])
        if scene.boxes is not None:
            found["boxes"].append(scene.boxes)
            found["labels"].append(scene.labels)
            found["difficult"].append(scene.difficult)
        if scene.mask is not None:
            found["masks"].append(scene.mask.reshape(-1))
        if scene.normals is not None:
            found["normals"].append(scene.normals.reshape(-1, 3))
    tensors: dict[str, np.ndarray] = {"sizes": np.array(sizes, np.int64)}
    if "boxes" in kinds:
        counts = [len(boxes) for boxes in found["boxes"]]
        tensors["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        tensors["boxes"] = np.concatenate(found["boxes"]).astype(np.float32).reshape(-1, 4)
        tensors["labels"] = np.concatenate(found["labels"]).astype(np.int64)
        tensors["difficult"] = np.concatenate(found["difficult"]).astype(np.uint8)
    for kind in {"masks", "normals"} & set(kinds):
        tensors[kind] = np.concatenate(found[kind])
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata={"miyagi": canonical(sorted(kinds))})


class Annotations:
    """What `write_annotations` wrote, read picture by picture.

    Attributes:
        sizes: N x 2 int64: height and width of each picture.
        kinds: which annotations there are.

    Raises:
        UserError: the file is missing or broken.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._open = safe_open(str(path), framework="numpy")
            self.kinds: list[str] = json.loads((self._open.metadata() or {})["miyagi"])
            self.sizes: np.ndarray = self._open.get_tensor("sizes")
            self._objects = {name: self._open.get_tensor(name) for name in OBJECTS if "boxes" in self.kinds}
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(f"cannot read {path}: {error}; run `dvc repro`") from error
        self._starts = np.concatenate([[0], np.cumsum(self.sizes.prod(1))])

    def __len__(self) -> int:
        return len(self.sizes)

    def objects(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One picture's boxes (M x 4 float32), labels (M int64) and whether they are difficult (M bool)."""
        start, stop = self._objects["offsets"][position : position + 2].tolist()
        boxes, labels, difficult = (self._objects[name][start:stop] for name in ("boxes", "labels", "difficult"))
        return boxes, labels, difficult.astype(bool)

    def map(self, kind: str, position: int) -> np.ndarray:
        """One picture's mask (H x W uint8) or normals (H x W x 3 uint8)."""
        start, stop = self._starts[position : position + 2].tolist()
        values: Any = self._open.get_slice(kind)[start:stop]
        found: np.ndarray = values.reshape(*self.sizes[position].tolist(), *values.shape[1:])
        return found
