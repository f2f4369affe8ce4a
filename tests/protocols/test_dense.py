"""Pictures mirrored with what is known of them, and a training that sees neither the test split nor a broken loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from miyagi.data.annotations import write_annotations
from miyagi.data.betons import write_beton
from miyagi.data.scene import Scene
from miyagi.errors import UserError
from miyagi.protocols import dense
from miyagi.protocols.base import DoesNotApply
from miyagi.protocols.dense import Pictures, Training, batch, outcome
from miyagi.protocols.segmentation import Segmentation, Settings
from miyagi.registry import PROTOCOLS
from miyagi.settings import Descent, Grid


@pytest.fixture
def task(make_task, annotated):
    return make_task("simclr", "scenes", annotated)


def settings(**changes):
    return Settings(
        **{"finetune": Grid(lr=[0.01], steps=[6]), "optimization": Descent(batch_size=8, looks=2)} | changes
    )


def training(task, own, seed=0):
    problem = Segmentation(own, 11, 32, dense.pictures(task, "val"))
    return Training(task, "segmentation", problem, own, seed)


@pytest.fixture
def pictures(tmp_path):
    """Three pictures: 4 x 6, 4 x 6 and 5 x 3, with everything known of them."""
    rng = np.random.default_rng(0)
    scenes = []
    for height, width in ((4, 6), (4, 6), (5, 3)):
        normals = rng.integers(1, 256, (height, width, 3), np.uint8)
        normals[0, 0] = 0
        scenes.append(Scene(
            rng.integers(0, 256, (height, width, 3), np.uint8), np.float32([[0, 1, 2, 3]]), np.int64([4]),
            np.array([False]), rng.integers(0, 5, (height, width), np.uint8), normals,
        ))  # fmt: skip
    write_beton(tmp_path / "a.beton", [scene.image for scene in scenes], np.zeros(3, int), largest=1000)
    write_annotations(tmp_path / "a.safetensors", scenes, ["boxes", "masks", "normals"])
    return Pictures(tmp_path / "a.beton", tmp_path / "a.safetensors"), scenes


def test_a_mirrored_picture_mirrors_what_is_known(pictures):
    found, scenes = pictures
    for i, scene in enumerate(scenes):
        image, mirrored = found.image(i), found.image(i, True)
        assert np.array_equal((image * 255).round().byte().permute(1, 2, 0), scene.image)
        assert torch.equal(mirrored, image.flip(2))
        assert torch.equal(found.mask(i, True), found.mask(i).flip(1))
        normals, other = found.normals(i), found.normals(i, True)
        assert torch.allclose(other, normals.flip(2) * torch.tensor([-1.0, 1, 1])[:, None, None])
        known = (normals != 0).any(0)
        assert not known[0, 0] and known.sum() == known.numel() - 1
        assert torch.allclose(normals[:, known].norm(dim=0), torch.ones(known.sum()), atol=1e-5)
        width = scene.image.shape[1]
        assert found.objects(i)[0].tolist() == [[0, 1, 2, 3]]
        assert found.objects(i, True)[0].tolist() == [[width - 2, 1, width, 3]]


def test_pictures_of_one_size_go_together(pictures):
    found, _ = pictures
    assert list(found.alike(2)) == [[0, 1], [2]]
    assert list(found.alike(1)) == [[0], [1], [2]]


def test_pictures_of_several_sizes_are_filled_up(pictures):
    found, _ = pictures
    x = batch(found.mask, [0, 2], [False, False], 255)
    assert x.shape == (2, 5, 6)
    assert torch.equal(x[0, :4], found.mask(0)) and (x[0, 4] == 255).all()
    assert torch.equal(x[1, :, :3], found.mask(2)) and (x[1, :, 3:] == 255).all()


def test_files_of_different_runs(pictures, tmp_path):
    _, scenes = pictures
    write_annotations(tmp_path / "b.safetensors", scenes[:2], ["masks"])
    with pytest.raises(UserError, match="are of different runs; run `dvc repro`"):
        Pictures(tmp_path / "a.beton", tmp_path / "b.safetensors")


def test_the_best_look_of_the_whole_grid_is_kept(task, monkeypatch):
    scores = iter([0.1, 0.4, 0.2, 0.4])
    monkeypatch.setattr(Segmentation, "score", lambda self, model: next(scores))
    tuned = training(task, settings(finetune=Grid(lr=[0.01, 0.003], steps=[4]))).fit()
    assert tuned.score == 0.4
    assert tuned.chosen == {"lr": 0.01, "steps": 4, "stop": 4, "start": "pretrained"}
    assert tuned.selection == "lr, steps and stop best of 4 on val"
    assert not tuned.model.training


def test_training_never_opens_the_test_split(task, monkeypatch):
    opened = []
    own = dense.pictures
    monkeypatch.setattr(dense, "pictures", lambda task, split: opened.append(split) or own(task, split))
    training(task, settings()).fit()
    assert "test" not in opened and "train" in opened


def test_training_again_gives_the_same_weights_and_another_seed_others(task):
    first, second, other = (training(task, settings(), seed).fit().model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.0.weight"], other["head.0.weight"])


def test_the_encoder_and_its_batchnorm_are_trained(task):
    encoder = task.encoder().state_dict()
    tuned = training(task, settings()).fit().model.encoder.state_dict()
    for name in ("blocks.conv1.0.weight", "blocks.conv4.1.weight", "blocks.conv4.1.running_mean"):
        assert not torch.equal(encoder[name], tuned[name]), name
    assert torch.equal(encoder["mean"], tuned["mean"])


def test_the_floor_starts_from_scratch_with_its_own_grid(make_task, annotated):
    own = settings(scratch=Grid(lr=[0.004], steps=[3]), optimization=Descent(batch_size=8, looks=1))
    tuned = training(make_task("random", "scenes", annotated), own).fit()
    assert tuned.chosen == {"lr": 0.004, "steps": 3, "stop": 3, "start": "scratch"}
    assert tuned.selection == "lr, steps and stop fixed"


def test_divergence_is_one_line(task, monkeypatch):
    monkeypatch.setattr(Segmentation, "loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(UserError, match=r"evaluate\.segmentation\.finetune\.lr: training diverged at every") as error:
        training(task, settings()).fit()
    assert "\n" not in str(error.value)


def test_each_epoch_shows_every_picture_once_in_another_order(task):
    own = settings(optimization=Descent(batch_size=8, looks=1), flip=0.5)
    batches = training(task, own)._batches(48, 3)
    epochs = [[next(batches) for _ in range(6)] for _ in range(2)]
    orders = [[row for rows, _ in epoch for row in rows] for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(48)) and orders[0] != orders[1]
    flips = [flip for epoch in epochs for _, own in epoch for flip in own]
    assert 0.25 < np.mean(flips) < 0.75
    assert next(training(task, settings())._batches(3, 3))[0].__len__() == 3  # fewer pictures than a batch


def test_a_kind_that_is_not_there(make_task, annotated):
    with pytest.raises(DoesNotApply, match="it has no boxes"):
        dense.require(make_task("simclr", "spheres", annotated), "boxes")


@pytest.mark.parametrize(("protocol", "dataset", "split", "without", "what"), [
    ("segmentation", "scenes", "val",
     lambda _, scene: replace(scene, mask=np.full_like(scene.mask, 255)), "pixel that is not ignored"),
    ("detection", "scenes", "test",
     lambda _, scene: replace(scene, difficult=np.ones_like(scene.difficult)), "object that is not difficult"),
    ("surface_normals", "spheres", "test",
     lambda _, scene: replace(scene, normals=np.zeros_like(scene.normals)), "pixel with a known normal"),
])  # fmt: skip
def test_a_split_with_nothing_to_score_is_a_line_before_the_training(
    make_task, reannotated, monkeypatch, protocol, dataset, split, without, what
):
    monkeypatch.setattr(Training, "fit", lambda self: pytest.fail("it was trained"))
    module = PROTOCOLS.load(protocol)
    task = make_task("simclr", dataset, reannotated(dataset, split, without))
    with pytest.raises(DoesNotApply, match=f"^its {split} split has no {what}$"):
        module.evaluate(task, module.Settings(), 0)


def test_an_outcome_has_the_whole_split_s_value(task):
    own = settings(optimization=Descent(batch_size=8, looks=1))
    tuned = training(task, own).fit()
    values = np.array([1.0, 2.0, 6.0])
    found = outcome("val", "x", tuned, lambda counts: counts @ values / counts.sum(1), values)
    assert found.span[0] == 3 and 1 <= found.span[1] < 3 < found.span[2] <= 6
    assert np.quantile(found.redrawn, [0.025, 0.975]) == pytest.approx(found.span[1:])
    assert (found.n, found.layer, found.chosen) == (3, "encoder", tuned.chosen)
