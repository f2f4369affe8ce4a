"""Average precision by hand, as the library's own files and summary give it, and as numpy redraws images."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from miyagi.metrics.detection import AveragePrecision, Objects


def objects(*rows, difficult=None):
    rows = np.array(rows, float).reshape(-1, 6)
    return Objects(rows[:, :4], rows[:, 4].astype(int), rows[:, 5], difficult)


A, B = (0, 0, 10, 10, 0, 0.9), (20, 20, 30, 30, 0, 0.8)


def values(truth, found, classes=1):
    return AveragePrecision(truth, found, classes)(np.ones((1, len(truth))))[0].tolist()


def test_by_hand():
    assert values([objects(A, B)], [objects(A, B)]) == [100, 100, 100]
    # One of two is found: precision 1 up to recall 0.5, which is 51 of 101 points.
    assert values([objects(A, B)], [objects(A)]) == pytest.approx([5100 / 101] * 3)
    # A surer false alarm halves the precision.
    assert values([objects(A)], [objects(A, (50, 50, 60, 60, 0, 0.95))]) == pytest.approx([50] * 3)
    # 8.2 of 10 columns: IoU 0.82 passes 7 of the thresholds 0.5, 0.55 ... 0.95.
    assert values([objects(A)], [objects((0, 0, 8.2, 10, 0, 0.9))]) == pytest.approx([70, 100, 100])
    assert values([objects(A)], [objects()]) == [0, 0, 0]
    assert np.isnan(values([objects()], [objects(A)])).all()


def test_an_empty_image_s_false_alarms_count():
    assert values([objects(A), objects()], [objects(A), objects((0, 0, 9, 9, 0, 0.95))]) == pytest.approx([50] * 3)


def test_a_difficult_object_is_neither_found_nor_missed():
    truth = [objects(A, B, difficult=np.array([False, True]))]
    assert values(truth, [objects(A)]) == pytest.approx([100] * 3)
    assert values(truth, [objects(A, (*B[:5], 0.99))]) == pytest.approx([100] * 3)


def random_sets(n=12, classes=3):
    rng = np.random.default_rng(0)

    def draw():
        corner, size = rng.random((rng.integers(0, 6), 2)) * 80, 10 + 20 * rng.random()
        m = len(corner)
        return np.concatenate([corner, corner + size, rng.integers(0, classes, (m, 1)), rng.random((m, 1))], axis=1)

    truth = [draw() for _ in range(n)]
    found = [np.concatenate([own + rng.normal(size=own.shape) * [2, 2, 2, 2, 0, 0], draw()[:1]]) for own in truth]
    return [objects(*own) for own in truth], [objects(*own) for own in found]


def test_as_the_library_reads_files_and_sums_up(tmp_path):
    truth, found = random_sets()

    def rows(images):
        return [
            {
                "image_id": i, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "score": score,
            }
            for i, image in enumerate(images)
            for (x1, y1, x2, y2), label, score in zip(image.boxes.tolist(), image.labels, image.scores.tolist(), strict=True)
        ]  # fmt: skip

    whole = {"images": [{"id": i} for i in range(12)], "categories": [{"id": c} for c in range(3)]}
    own = [{**row, "id": number} for number, row in enumerate(rows(truth), 1)]
    (tmp_path / "truth.json").write_text(json.dumps({**whole, "annotations": own}))
    (tmp_path / "found.json").write_text(json.dumps(rows(found)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "found.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 10 < evaluation.stats[0] * 100 < 90
    assert values(truth, found, 3) == pytest.approx((100 * evaluation.stats[:3]).tolist(), abs=1e-9)


def test_images_drawn_again_count_as_often():
    truth, found = random_sets()
    drawn = np.random.default_rng(1).integers(0, 12, 12)
    counts = np.bincount(drawn, minlength=12)[None]
    order = np.repeat(np.arange(12), counts[0])
    again = values([truth[i] for i in order], [found[i] for i in order], 3)
    precision = AveragePrecision(truth, found, 3)
    whole = precision(np.ones((1, 12)))
    assert precision(counts)[0].tolist() == pytest.approx(again)
    assert precision(np.ones((1, 12))).tolist() == whole.tolist() != [again]
