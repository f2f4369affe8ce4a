"""Average precision by COCO's rules (Lin et al., ECCV 2014), by the benchmark's own code, pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
METRICS = ("ap", "ap50", "ap75")
"""The mean over IoU thresholds 0.5, 0.55 ... 0.95, and at 0.5 and 0.75 alone; each the mean over classes."""
DETECTIONS = 100
"""Of an image, the most that count."""


@dataclass(frozen=True)
class Objects:
    """What is in one image, or what was found in it.

    Attributes:
        boxes: M x 4: x1, y1, x2, y2 in pixels.
        labels: M integers in [0, classes).
        scores: M: how sure a finding is; unused of what is there.
        difficult: M bool, of what is there: COCO's crowd, which counts neither as found nor as missed. None: none is.
    """

    boxes: NDArray[Any]
    labels: NDArray[Any]
    scores: NDArray[Any] | None = None
    difficult: NDArray[Any] | None = None


class AveragePrecision:
    """AP, AP50 and AP75 of findings on N images, also where images are drawn again with replacement.

    Args:
        truth, found: one each an image, in the same order.
        classes: how many.
    """

    def __init__(self, truth: Sequence[Objects], found: Sequence[Objects], classes: int) -> None:
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it tells how long each step took
            self._eval = COCOeval(_coco(truth, classes), _coco(found, classes), "bbox")
            params = self._eval.params
            params.imgIds, params.catIds = list(range(1, len(truth) + 1)), list(range(1, classes + 1))
            params.areaRng, params.areaRngLbl, params.maxDets = [[0, 1e10]], ["all"], [DETECTIONS]
            self._eval.evaluate()
        self._matches = list(self._eval.evalImgs)  # class by class, in each image by image
        self._images, self._classes = len(truth), classes
        self._known: dict[bytes, Floats] = {}

    def __call__(self, counts: Floats) -> Floats:
        """R x N, how often each image counts, to R x 3 (METRICS) in percent; NaN where there is no object at all."""
        rows = counts.astype(np.int64)
        for row in rows:
            if row.tobytes() not in self._known:  # the three are asked for one after the other
                self._known[row.tobytes()] = self._of(np.repeat(np.arange(len(row)), row))
        return np.array([self._known[row.tobytes()] for row in rows])

    def _of(self, images: NDArray[np.int64]) -> Floats:
        # The library's bookkeeping is by the number of images alone, so an image may stand there twice.
        self._eval.params.imgIds = self._eval._paramsEval.imgIds = list(range(len(images)))
        self._eval.evalImgs = [
            self._matches[k * self._images + image] for k in range(self._classes) for image in images.tolist()
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            self._eval.accumulate()
        precision: Floats = self._eval.eval["precision"][:, :, :, 0, 0]  # thresholds x recalls x classes
        at = {value: np.isclose(self._eval.params.iouThrs, value) for value in (0.5, 0.75)}
        return np.array([_mean(precision), _mean(precision[at[0.5]]), _mean(precision[at[0.75]])])


def _mean(precision: Floats) -> float:
    known = precision[precision > -1]
    return float(100 * known.mean()) if known.size else np.nan


def _coco(images: Sequence[Objects], classes: int) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    annotations: list[dict[str, Any]] = []
    for number, objects in enumerate(images, 1):
        boxes = np.asarray(objects.boxes, np.float64).reshape(-1, 4)
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(objects.labels[i]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(objects.difficult is not None and bool(objects.difficult[i])),
                    "score": 0.0 if objects.scores is None else float(objects.scores[i]),
                }
            )
    coco.dataset = {
        "images": [{"id": number} for number in range(1, len(images) + 1)],
        "categories": [{"id": label + 1} for label in range(classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
