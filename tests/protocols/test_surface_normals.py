import numpy as np
import pytest
import torch

from miyagi.protocols import dense
from miyagi.protocols.dense import Tuned
from miyagi.protocols.surface_normals import Regression, Settings, evaluate, outcomes
from miyagi.settings import Descent, Grid


def test_it_learns_the_shape_of_a_ball(make_task, annotated):
    task = make_task("simclr", "spheres", annotated)
    settings = Settings(finetune=Grid(lr=[0.01], steps=[60]), optimization=Descent(batch_size=8, looks=1), flip=0.0)
    found = {(each.split, each.metric): each for each in evaluate(task, settings, 0)}
    metrics = ("angle_mean_degrees", "angle_median_degrees", "within_11.25", "within_22.5", "within_30")
    assert set(found) == {(split, metric) for split in ("val", "test") for metric in metrics}
    test = dense.pictures(task, "test")
    truth = torch.cat([test.normals(i).flatten(1) for i in range(len(test))], 1)
    truth = truth[:, (truth != 0).any(0)]
    constant = torch.nn.functional.normalize(truth.mean(1), dim=0) @ truth  # the best single direction
    floor = float(torch.rad2deg(torch.acos(constant.clamp(-1, 1))).mean())
    assert found["test", "angle_mean_degrees"].span[0] < 0.7 * floor
    assert not found["test", "angle_mean_degrees"].higher_is_better
    assert found["test", "within_30"].higher_is_better
    for each in found.values():
        assert each.span[1] <= each.span[0] <= each.span[2]


def test_numbers_by_hand():
    tuned = Tuned(torch.nn.Identity(), 0.0, {})
    found = {each.metric: each for each in outcomes("test", tuned, [np.array([10.0, 20.0, 60.0]), np.array([25.0])])}
    values = {metric: each.span[0] for metric, each in found.items()}
    assert values == {
        "angle_mean_degrees": 28.75, "angle_median_degrees": 22.5,
        "within_11.25": 25, "within_22.5": 50, "within_30": 75,
    }  # fmt: skip
    assert found["within_30"].scores == pytest.approx([200 / 3, 100])
    assert found["angle_mean_degrees"].n == 2


def test_the_loss_is_one_minus_the_cosine_over_known_pixels(make_task, annotated):
    task = make_task("simclr", "spheres", annotated)
    problem = Regression(Settings(), 32, dense.pictures(task, "val"))
    model = problem.build(task.encoder()).eval()
    train = dense.pictures(task, "train")
    y, truth = model(train.image(0)[None])[0].detach(), train.normals(0)
    known = (truth != 0).any(0)
    cosine = torch.cosine_similarity(y[:, known], truth[:, known], dim=0)
    assert 0.2 < float(known.float().mean()) < 0.9
    assert problem.loss(model, train, [0], [False]).item() == pytest.approx((1 - cosine).mean().item(), rel=1e-4)
