"""By hand, and against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from miyagi.metrics.segmentation import confusion, mean_iou, pixel_accuracy


def test_by_hand():
    truth = np.array([[0, 0, 1], [1, 2, 255]])
    predicted = np.array([[0, 1, 1], [1, 0, 2]])
    matrix = confusion(predicted, truth, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # IoU 1/3, 2/3, 0; the fourth class does not occur
    assert mean_iou(matrix) == pytest.approx(100 * (1 / 3 + 2 / 3 + 0) / 3)
    assert pixel_accuracy(matrix) == pytest.approx(60)


@pytest.mark.parametrize("classes", [2, 7])
def test_as_torchmetrics(classes):
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes, (5, 12, 9)).astype(np.uint8)
    truth[truth == 5] = 0  # one class is in no mask
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes, truth.shape))
    truth[rng.random(truth.shape) < 0.2] = 255
    matrix = sum(confusion(p, t, classes) for p, t in zip(predicted, truth, strict=True))
    both = torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))
    iou = MulticlassJaccardIndex(classes, average="macro", ignore_index=255)(*both)
    accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=255)(*both)
    assert mean_iou(matrix) == pytest.approx(100 * float(iou), rel=1e-6)
    assert pixel_accuracy(matrix) == pytest.approx(100 * float(accuracy), rel=1e-6)


def test_where_nothing_counts_there_is_no_number():
    matrices = np.stack([np.zeros((3, 3), int), np.eye(3, dtype=int)])
    assert np.isnan(mean_iou(matrices)[0]) and np.isnan(pixel_accuracy(matrices)[0])
    assert (mean_iou(matrices)[1], pixel_accuracy(matrices)[1]) == (100, 100)
