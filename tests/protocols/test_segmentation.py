import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from miyagi.metrics.segmentation import mean_iou
from miyagi.protocols import dense
from miyagi.protocols.segmentation import Segmentation, Settings, evaluate
from miyagi.settings import Descent, Grid


@pytest.fixture
def task(make_task, annotated):
    return make_task("simclr", "scenes", annotated)


def test_it_learns_and_its_numbers_are_torchmetrics(task, monkeypatch):
    """The predictions on test are counted a second time; what it was trained on is more than background to it."""
    models = []
    own = dense.Training.fit
    monkeypatch.setattr(dense.Training, "fit", lambda self: models.append(own(self)) or models[-1])
    settings = Settings(finetune=Grid(lr=[0.01], steps=[100]), optimization=Descent(batch_size=16, looks=2), flip=0.0)
    found = {(each.split, each.metric): each for each in evaluate(task, settings, 0)}
    assert set(found) == {(split, metric) for split in ("val", "test") for metric in ("miou", "pixel_accuracy")}
    test = dense.pictures(task, "test")
    predicted = torch.stack([y.argmax(0) for _, y in dense.predicted(models[0].model, test)])
    truth = torch.stack([test.mask(i) for i in range(len(test))])
    iou = MulticlassJaccardIndex(11, average="macro", ignore_index=255)(predicted, truth)
    accuracy = (predicted == truth).double().mean()
    miou, low, high = found["test", "miou"].span
    assert miou == pytest.approx(100 * float(iou), rel=1e-6)
    assert found["test", "pixel_accuracy"].span[0] == pytest.approx(100 * float(accuracy))
    assert low <= miou <= high
    train = dense.pictures(task, "train")
    matrix = Segmentation(settings, 11, 32, train).matrices(models[0].model, train).sum(0)
    background = matrix[0].sum() / matrix.sum()
    assert mean_iou(matrix) > 100 * background / 11 + 2  # what one gets that sees nothing else
    assert len(found["test", "miou"].scores) == 16


def test_pixels_that_do_not_count_have_no_part_in_the_loss(task, monkeypatch):
    torch.manual_seed(0)
    problem = Segmentation(Settings(), 11, 32, dense.pictures(task, "val"))
    model = problem.build(task.encoder()).eval()
    train = dense.pictures(task, "train")
    whole = problem.loss(model, train, [0, 1], [False, False])
    mask = dense.Pictures.mask

    def hidden(self, row, flip=False):
        found = mask(self, row, flip)
        return torch.full_like(found, 255) if row == 1 else found

    monkeypatch.setattr(dense.Pictures, "mask", hidden)
    alone = problem.loss(model, train, [0], [False])
    assert problem.loss(model, train, [0, 1], [False, False]).item() == pytest.approx(alone.item(), rel=1e-5)
    assert whole.item() != pytest.approx(alone.item(), rel=1e-3)
    assert problem.loss(model, train, [1], [False]).item() == 0  # and nothing to learn from is no error


def test_the_loss_is_the_mean_over_pixels(task):
    problem = Segmentation(Settings(), 11, 32, dense.pictures(task, "val"))
    model = problem.build(task.encoder()).eval()
    train = dense.pictures(task, "train")
    y = model(train.image(0)[None]).log_softmax(1)[0].detach().numpy()
    mask = train.mask(0).numpy()
    by_hand = -np.mean([y[mask[i, j], i, j] for i in range(32) for j in range(32)])
    assert problem.loss(model, train, [0], [False]).item() == pytest.approx(by_hand, rel=1e-4)
