"""What every annotated source gives: pictures with boxes, masks or normals, decoded one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from miyagi.data.betons import ASPECT

IGNORED = 255
"""The label of a pixel that does not count, whatever the source's own is."""


@dataclass(frozen=True)
class Scene:
    """One picture and what is known of it.

    Attributes:
        image: H x W x 3 uint8 RGB.
        boxes: M x 4 float32 (x1, y1, x2, y2), in pixels from the upper left corner; None: nobody looked for objects.
        labels: M int64, positions in `Annotated.kinds["boxes"]`.
        difficult: M bool: objects that count neither as found nor as missed.
        mask: H x W uint8, positions in `Annotated.kinds["masks"]`, or IGNORED.
        normals: H x W x 3 uint8, a unit vector n as 127.5 (n + 1); (0, 0, 0) where none is known.
    """

    image: np.ndarray
    boxes: np.ndarray | None = None
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    mask: np.ndarray | None = None
    normals: np.ndarray | None = None


@dataclass(frozen=True)
class Scenes:
    """So many pictures, and a function from a position to one; it may raise UserError where a file has changed."""

    total: int
    read: Callable[[int], Scene]


@dataclass(frozen=True)
class Annotated:
    """An annotated data set as its source has it.

    Attributes:
        kinds: "boxes", "masks" or "normals" -> the class names (none of normals); text from anywhere.
        train: the training pictures; all of them where `test` is None.
        val, test: the source's own; None: cut from `train`.
        digest: sha256 over everything that was read.
        skipped: see `miyagi.data.source.Raw`.
        notes: what else a reader of the manifest should know.
    """

    kinds: dict[str, list[str]]
    train: Scenes
    val: Scenes | None
    test: Scenes | None
    digest: str
    skipped: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def shrunk(scene: Scene, shorter: int) -> Scene:
    """A scene whose picture's shorter side is at most `shorter` pixels; never enlarged.

    The picture is shrunk with an antialiasing filter; masks and normals take the nearest pixel, because a label or a
    direction between two others would be neither.
    """
    height, width = scene.image.shape[:2]
    if min(height, width) <= shorter:
        return scene
    high, wide = (max(1, round(side * shorter / min(height, width))) for side in (height, width))

    def resized(pixels: np.ndarray, how: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((wide, high), how))

    nearest = Image.Resampling.NEAREST
    ratio = np.array([wide / width, high / height] * 2, np.float32)
    return replace(
        scene,
        image=resized(scene.image, Image.Resampling.BICUBIC),
        boxes=None if scene.boxes is None else scene.boxes * ratio,
        mask=None if scene.mask is None else resized(scene.mask, nearest),
        normals=None if scene.normals is None else resized(scene.normals, nearest),
    )


def trouble(shape: Sequence[int], annotation: Sequence[int] | None = None) -> str | None:
    """Why a picture of a shape (H, W, ...) cannot be used, with a map of its own shape where it has one; or None."""
    height, width = shape[:2]
    if annotation is not None and tuple(annotation[:2]) != (height, width):
        return f"its annotation has {annotation[1]} x {annotation[0]} pixels, the picture {width} x {height}"
    if max(height, width) > ASPECT * min(height, width):
        return f"{width} x {height} pixels: longer than {ASPECT} times its shorter side"
    return None
