"""Fine-tuning on few labels: who is labelled, what is stamped, and what cannot leak."""

import numpy as np
import pytest

from miyagi.protocols.lowlabel import Settings, balanced, evaluate
from miyagi.settings import Grid, Optimization

SETTINGS = Settings(
    fractions=[0.04, 0.4], draws=2, finetune=Grid(lr=[1e-5, 0.01], steps=[20]), scratch=Grid(lr=[0.01], steps=[30]),
    optimization=Optimization(batch_size=32, augment={"flip": 0.0}),
)  # fmt: skip
ONE = SETTINGS.model_copy(update={"fractions": [0.4], "draws": 1})


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.33, 0.9])
def test_the_same_number_a_class(fraction):
    labels = np.random.default_rng(0).integers(0, 10, 3000)
    counts = np.bincount(labels[balanced(labels, 10, fraction, 0)], minlength=10)
    wanted = round(300 * fraction)
    assert counts.tolist() == [min(wanted, n) for n in np.bincount(labels)]


def test_a_smaller_share_is_a_part_of_a_larger_one_and_draws_differ():
    labels = np.arange(1000) % 10
    few, many, other = (set(balanced(labels, 10, f, seed)) for f, seed in ((0.05, 3), (0.2, 3), (0.05, 4)))
    assert few < many and len(few) == 50 and len(many) == 200
    assert few != other
    assert few == set(balanced(labels, 10, 0.05, 3))


def test_at_least_one_a_class_and_all_at_1():
    labels = np.array([0] * 500 + [1] * 40 + [3])
    counts = np.bincount(labels[balanced(labels, 4, 0.01, 0)], minlength=4)
    assert counts.tolist() == [1, 1, 0, 1]
    assert balanced(labels, 4, 1.0, 0).tolist() == list(range(541))
    assert np.bincount(labels[balanced(labels, 4, 0.5, 0)], minlength=4).tolist() == [68, 40, 0, 1]


def test_rows_say_the_number_of_labels(make_task):
    outcomes = evaluate(make_task(), SETTINGS, 0)
    assert [(o.condition, o.draw, o.split) for o in outcomes] == [
        ({"fraction": fraction, "labels": n}, draw, split)
        for fraction, n in ((0.04, 10), (0.4, 100)) for draw in (0, 1) for split in ("val", "test")
    ]  # fmt: skip
    assert {o.chosen["lr"] for o in outcomes} == {0.01}
    few, many = (np.mean([o.scores.mean() for o in outcomes if o.condition["labels"] == n]) for n in (10, 100))
    assert min(few, many) > 50  # chance is 10 %; so few images do not say which of the two is better
    draws = [o.predicted for o in outcomes if o.split == "test" and o.condition["labels"] == 10]
    assert not np.array_equal(*draws)


def test_all_labels_are_drawn_once(make_task):
    outcomes = evaluate(make_task(), SETTINGS.model_copy(update={"fractions": [1.0]}), 0)
    assert [(o.condition["labels"], o.draw) for o in outcomes] == [(256, 0), (256, 0)]


def test_the_floor_is_trained_from_scratch_on_the_same_images_with_its_own_grid(make_task, monkeypatch):
    import miyagi.protocols.classifier as module

    seen = {}
    plain = module.Trainer.train_loader

    def spy(self, subset=None):
        seen.setdefault(self.task.pretrained, []).append(subset.tolist())
        return plain(self, subset)

    monkeypatch.setattr(module.Trainer, "train_loader", spy)
    tuned, scratch = (evaluate(make_task(name), ONE, 0)[1] for name in ("simclr", "random"))
    assert seen[True] == seen[False]
    assert (tuned.chosen["start"], scratch.chosen["start"], scratch.chosen["steps"]) == ("pretrained", "scratch", 30)
    assert tuned.condition == scratch.condition  # so the report sets one against the other
    assert scratch.scores.mean() > 30


def test_a_leak_would_show(make_task, relabelled, trained):
    """The test split's labels and pixels replaced: nothing but its own numbers changes."""
    found = evaluate(make_task(), ONE, 0)
    honest = found[0]
    leak = found[1].predicted  # labels on which the chosen classifier is always right
    noise = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8)
    for name, labels, images in (("labels", leak, None), ("noise", (leak + 1) % 10, {"test": noise})):
        paths = relabelled({"test": labels}, name, images)
        val, test = evaluate(make_task(paths=paths), ONE, 0)
        assert (val.chosen, val.predicted.tolist()) == (honest.chosen, honest.predicted.tolist())
        assert test.chosen == honest.chosen
        assert (test.scores.mean() == 100) == (name == "labels")


def test_validation_does_choose(make_task, relabelled):
    """Were the validation labels those of a poor classifier, that one would be chosen."""
    poor = ONE.model_copy(update={"finetune": Grid(lr=[1e-5], steps=[20])})
    wanted = evaluate(make_task(), poor, 0)[0].predicted
    paths = relabelled({"val": wanted})
    assert evaluate(make_task(paths=paths), ONE, 0)[0].chosen["lr"] == 1e-5


def test_twice_the_same_bits(make_task):
    first, second = (evaluate(make_task(), ONE, 0) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.predicted.tolist() == b.predicted.tolist()
        assert a.chosen == b.chosen


def test_odd_classes_get_a_line(make_task, relabelled, trained, capsys):
    labels = make_task().labels("train")
    odd = np.where(np.isin(labels, (7, 8)), 6, labels)
    odd[np.flatnonzero(labels == 7)[0]] = 7
    paths = relabelled({"train": odd})
    evaluate(make_task(paths=paths), ONE, 0)
    # Where the machine is busy, other lines say how far it is.
    first, second = (line for line in capsys.readouterr().err.splitlines() if "note" in line)
    assert first == ("miyagi: note: lowlabel at 40 % of datasets.digits: 1 of 10 classes have no image to train on: 8")
    assert second == "miyagi: note: lowlabel at 40 % of datasets.digits: 1 of 10 classes have fewer than 10: 7"
