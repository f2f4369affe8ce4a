"""The detector learns eight pictures by heart; what it is made of; what it is told."""

import numpy as np
import pytest
import torch

from miyagi.errors import UserError
from miyagi.protocols import dense
from miyagi.protocols.dense import Training
from miyagi.protocols.detection import Detection, Settings, evaluate
from miyagi.settings import Descent, Grid


@pytest.fixture
def task(make_task, annotated):
    return make_task("simclr", "scenes", annotated)


def problem(task, **settings):
    own = Settings(**{"width": 16, "representation": 64} | settings)
    return Detection(own, 10, 32, dense.pictures(task, "val"))


def test_the_pyramid_stands_on_the_last_layers(task):
    model = problem(task, anchors=[0.25, 0.5]).build(task.encoder()).eval()
    assert model.rpn.anchor_generator.sizes == ((8,), (16,))
    maps = model.backbone(torch.rand(1, 3, 32, 32))
    assert {name: tuple(each.shape) for name, each in maps.items()} == {"conv3": (1, 16, 4, 4), "conv4": (1, 16, 2, 2)}
    (found,) = model([torch.rand(3, 32, 40)])
    assert set(found) == {"boxes", "labels", "scores"}


def test_more_levels_than_layers(task):
    with pytest.raises(UserError, match=r"evaluate\.detection\.anchors: 5 levels, but the encoder has 4 layers"):
        problem(task, anchors=[0.1, 0.2, 0.3, 0.4, 0.5]).build(task.encoder())


def test_difficult_objects_and_empty_pictures_are_no_targets(task, monkeypatch):
    own = problem(task)
    model = own.build(task.encoder()).train()
    told = []
    monkeypatch.setattr(model, "forward", lambda images, targets: told.extend(targets) or {"a": torch.tensor(1.0)})
    objects = dense.Pictures.objects

    def difficult(self, row, flip=False):
        boxes, labels, _ = objects(self, row, flip)
        return boxes, labels, torch.full((len(boxes),), row == 1)

    monkeypatch.setattr(dense.Pictures, "objects", difficult)
    own.loss(model, dense.pictures(task, "train"), [0, 1], [False, False])
    assert len(told[0]["boxes"]) == len(told[0]["labels"]) > 0 and told[0]["labels"].min() >= 1
    assert told[1]["boxes"].shape == (0, 4) and len(told[1]["labels"]) == 0
    monkeypatch.undo()
    monkeypatch.setattr(dense.Pictures, "objects", lambda self, row, flip=False: (
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool),
    ))  # fmt: skip
    assert torch.isfinite(own.loss(model, dense.pictures(task, "train"), [0, 1], [False, True]))


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(task, monkeypatch):
    """AP50 above 0.9 on what it was trained on: encoder, anchors, targets and evaluation fit together."""
    eight = dense.pictures(task, "train")
    monkeypatch.setattr(dense.Pictures, "__len__", lambda self: 8)
    settings = Settings(
        finetune=Grid(lr=[0.003], steps=[200]), optimization=Descent(batch_size=8, looks=1), flip=0.0,
        anchors=[0.25, 0.35, 0.45], width=32, representation=128,
    )  # fmt: skip
    own = Detection(settings, 10, 32, eight)
    tuned = Training(task, "detection", own, settings, 0).fit()
    ap, ap50, ap75 = own.precision(tuned.model, eight)(np.ones((1, 8)))[0]
    assert ap50 > 90, (ap, ap50, ap75)
    assert tuned.score == pytest.approx(ap)


def test_rows_of_both_splits(task):
    settings = Settings(
        finetune=Grid(lr=[0.003], steps=[3]), optimization=Descent(batch_size=8, looks=1), width=16, representation=32
    )
    found = evaluate(task, settings, 0)
    assert [(each.split, each.metric) for each in found] == [
        (split, metric) for split in ("val", "test") for metric in ("ap", "ap50", "ap75")
    ]
    assert [each.n for each in found] == [12] * 3 + [16] * 3
    for each in found:
        assert 0 <= each.span[1] <= each.span[0] <= each.span[2] <= 100
