"""Training a classifier on an encoder: what moves, what chooses, what is repeatable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from miyagi.errors import UserError
from miyagi.protocols.classifier import Trainer, outcomes
from miyagi.protocols.task import Task
from miyagi.settings import Grid, Optimization

HOW = Optimization(batch_size=32, augment={"flip": 0.0})


def trainer(task, frozen=False, **how):
    return Trainer(task, "lowlabel", HOW.model_copy(update=how), 0, 7, frozen)


def fit(found, grid=None, **options):
    grid = grid or Grid(lr=[0.01], steps=[20])
    return found.fit(found.train_loader(**options), found.task.loader("val"), grid, "evaluate.x.grid")


def state(encoder):
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_fine_tuning_moves_everything_and_batchnorm_too(make_task):
    task = make_task()
    trained = fit(trainer(task))
    names = moved(state(task.encoder()), state(trained.encoder))
    assert names == {name for name in state(task.encoder()) if name not in ("mean", "std")}
    assert {"blocks.conv1.1.running_mean", "blocks.conv1.1.weight", "blocks.conv1.0.weight"} <= names
    assert not trained.encoder.training


def test_frozen_moves_the_head_alone(make_task):
    task = make_task()
    trained = fit(trainer(task, frozen=True))
    assert moved(state(task.encoder()), state(trained.encoder)) == set()
    assert trained.head.weight.std() > 0.02  # it started at 0.01


def test_it_learns(make_task):
    task = make_task()
    trained = fit(trainer(task), Grid(lr=[0.01], steps=[60]))
    predicted, y = trained.predict(task.loader("test"))
    assert np.array_equal(y, task.labels("test"))
    assert (predicted == y).mean() > 0.8  # chance is 0.1
    shown = trained.accuracy
    assert shown == (trained.predict(task.loader("val"))[0] == task.labels("val")).mean()


def test_side_by_side_is_one_by_one(make_task):
    """Frozen, all learning rates share the forward passes: each ends as it would alone."""
    found = trainer(make_task(), frozen=True, optimizer="sgd")
    val, rates = found.task.loader("val"), [0.001, 0.1, 1.0]
    alone = [found.train(found.train_loader(), val, [lr], 15) for lr in rates]
    accuracies = [each.accuracy for each in alone]
    best = alone[int(np.argmax(accuracies))]
    together = fit(found, Grid(lr=rates, steps=[15]))
    assert len(set(accuracies)) > 1
    assert (together.chosen, together.accuracy) == (best.chosen, best.accuracy)
    torch.testing.assert_close(together.head.weight, best.head.weight)


def test_the_grid_and_the_looks_choose_on_val(make_task):
    found = trainer(make_task(), looks=2)
    grid = Grid(lr=[1e-6, 0.01], steps=[4, 30])
    trained = fit(found, grid)
    assert trained.chosen == {"lr": 0.01, "steps": 30, "stop": 30, "start": "pretrained"}
    assert trained.selection == "lr, steps and stop best of 8 on val"
    alone = fit(trainer(make_task(), looks=1))
    assert alone.selection == "lr, steps and stop fixed"


def test_less_than_one_epoch_gets_a_line(make_task, capsys):
    found = trainer(make_task())
    total = found.train_loader().images
    enough = -(-total // 32)
    for steps in (enough, enough - 1):
        fit(found, Grid(lr=[0.01], steps=[2, steps]))
    assert [line for line in capsys.readouterr().err.splitlines() if "note" in line] == [
        f"miyagi: note: evaluate.x.grid.steps: {enough - 1} steps of 32 images are less than one epoch of the {total} that "
        "there are; add more steps"
    ]


def test_an_early_look_can_win(make_task, monkeypatch):
    """Whatever comes after the best look is not kept: here training goes wrong half way."""
    import miyagi.protocols.descent as module

    plain = module.share
    monkeypatch.setattr(module, "share", lambda how, progress: plain(how, progress) if progress < 0.5 else 100.0)
    found = trainer(make_task(), looks=2)
    trained = fit(found, Grid(lr=[0.01], steps=[30]))
    assert trained.chosen["stop"] == 15
    assert (trained.predict(found.task.loader("val"))[0] == found.task.labels("val")).mean() == trained.accuracy > 0.3


def test_again_ends_where_fit_did(make_task):
    """On the same images, training again to the chosen step gives the chosen classifier."""
    found = trainer(make_task(), looks=2)
    tried = fit(found, Grid(lr=[0.003, 0.01], steps=[10]))
    again = found.again(found.train_loader(), tried)
    assert moved(state(tried.encoder), state(again.encoder)) == set()
    assert torch.equal(tried.head.weight, again.head.weight)
    assert (again.chosen, again.selection, again.accuracy) == (tried.chosen, tried.selection, tried.accuracy)


@pytest.mark.parametrize("frozen", [False, True])
def test_twice_the_same_bits_and_another_draw_differs(make_task, frozen):
    first, second = (fit(trainer(make_task(), frozen)) for _ in range(2))
    assert torch.equal(first.head.weight, second.head.weight)
    assert moved(state(first.encoder), state(second.encoder)) == set()
    found = trainer(make_task(), frozen)
    other = Trainer(found.task, "lowlabel", HOW, 0, 8, frozen)
    assert not torch.equal(first.head.weight, fit(other).head.weight)


def test_scratch_is_the_floors_own_initialisation(make_task):
    """Fine-tuning an encoder that was never trained is training from scratch."""
    floor = make_task("random")
    assert not floor.pretrained and make_task().pretrained
    stored, scratch = state(floor.encoder()), state(floor.start(0))
    assert moved(stored, scratch) <= {"mean", "std"}
    assert moved(stored, state(floor.start(1))) - {"mean", "std"}
    assert fit(trainer(floor)).chosen["start"] == "scratch"
    assert moved(state(make_task().start(0)), state(make_task().encoder())) == set()


def test_every_rate_diverges(make_task):
    with pytest.raises(
        UserError, match=r"evaluate\.x\.grid\.lr: training diverged at every learning rate of \[1e\+30\]"
    ):
        fit(trainer(make_task(), optimizer="sgd"), Grid(lr=[1e30], steps=[8]))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_rate_that_diverges_does_not_win_by_calling_everything_the_first_class(make_task, relabelled, frozen):
    """Every validation image is of the first class: whoever has diverged would have them all right."""
    task = make_task(paths=relabelled({"val": np.zeros(64, np.int64)}))
    trained = fit(trainer(task, frozen, optimizer="sgd"), Grid(lr=[1e30, 0.01], steps=[8]))
    assert trained.chosen["lr"] == 0.01
    assert torch.isfinite(trained.head.weight).all()


def test_a_chosen_rate_that_diverges_on_other_images_is_one_line(make_task):
    found = trainer(make_task(), optimizer="sgd")
    tried = fit(found, Grid(lr=[0.01], steps=[4]))
    diverging = replace(tried, chosen=tried.chosen | {"lr": 1e30})
    with pytest.raises(
        UserError, match=r"^evaluate\.lowlabel: training diverged at the chosen learning rate 1e\+30[^\n]*$"
    ):
        found.again(found.train_loader(), diverging)


def test_an_unknown_recipe_is_named(make_task):
    with pytest.raises(
        UserError, match=r"evaluate\.lowlabel\.optimization\.recipe: there is no recipe 'weka'; did you mean"
    ):
        fit(trainer(make_task(), recipe="weka"))


class Watched(Task):
    """A task that notes what is read."""

    read = []

    def loader(self, split, *arguments, **options):
        self.read.append(split)
        return super().loader(split, *arguments, **options)


def test_the_test_split_is_read_once_and_last(make_task):
    task = make_task(kind=Watched)
    task.read.clear()
    trained = fit(trainer(task), Grid(lr=[0.001, 0.01], steps=[5]))
    assert "test" not in task.read
    found = outcomes(task, trained, {"labels": 3}, 1)
    assert task.read[-2:] == ["val", "test"] and task.read.count("test") == 1
    assert [(o.split, o.layer, o.metric, o.condition, o.draw) for o in found] == [
        ("val", "encoder", "top1", {"labels": 3}, 1), ("test", "encoder", "top1", {"labels": 3}, 1),
    ]  # fmt: skip
    assert np.array_equal(found[1].scores, 100.0 * (found[1].predicted == task.labels("test")))


def test_images_of_other_shapes_are_cropped_by_the_decoder(make_task, copied, trained):
    """Digits with a margin at the right, 32 x 48: a crop of the whole height still learns them."""
    from miyagi.data.betons import read_images, write_beton

    paths = copied(trained)
    for split in ("train", "val", "test"):
        pixels, labels = read_images(paths.beton("digits", split))
        wide = np.pad(pixels, ((0, 0), (0, 0), (0, 16), (0, 0)))
        write_beton(paths.beton("digits", split), wide, labels, largest=wide[0].nbytes)
    task = make_task(paths=paths)
    for augmentation in ({"pad": 2, "flip": 0.0}, {"pad": 0, "flip": 0.0, "crop": {"scale": [0.6, 0.7]}}):
        trained_on = fit(trainer(task, augment=augmentation), Grid(lr=[0.01], steps=[40]))
        assert trained_on.accuracy > 0.4  # chance is 0.1
