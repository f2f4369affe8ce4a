"""Transfer to a second data set: here the digits upside down, in the same small project."""

import itertools
import json
import shutil

import numpy as np
import pytest

from miyagi.data.betons import read_images, write_beton
from miyagi.data.rng import Key, permutation
from miyagi.errors import UserError
from miyagi.protocols.transfer import Settings, evaluate
from miyagi.settings import Grid, Optimization

SETTINGS = Settings(
    c=[0.0001, 0.1], finetune=Grid(lr=[1e-5, 0.01], steps=[30]), scratch=Grid(lr=[0.01], steps=[40]),
    optimization=Optimization(batch_size=32, augment={"flip": 0.0}),
)  # fmt: skip
FEW = SETTINGS.model_copy(update={"labels": [100]})


@pytest.fixture
def target(copied, trained):
    """target(**labels): a copy with a data set `other`, the labels of some splits replaced."""

    def make(name="target", **labels):
        paths = copied(trained, name)
        shutil.copytree(paths.manifest("digits").parent, paths.manifest("other").parent)
        for split in ("train", "val", "test"):
            pixels, own = read_images(paths.beton("other", split))
            write_beton(paths.beton("other", split), np.ascontiguousarray(pixels[:, ::-1]), labels.get(split, own))
        return paths

    return make


@pytest.fixture
def task_of(make_task, target):
    numbers = itertools.count()
    return lambda name="simclr", **labels: make_task(name, "other", target(f"{name}{next(numbers)}", **labels))


def test_a_row_a_mode_and_a_number_of_labels(task_of):
    outcomes = evaluate(task_of(), SETTINGS.model_copy(update={"labels": [None, 100]}), 0)
    assert [(o.condition["mode"], o.condition["labels"], o.split) for o in outcomes] == [
        (mode, labels, split) for labels in (256, 100) for mode in ("frozen", "finetuned") for split in ("val", "test")
    ]  # fmt: skip
    found = {(o.condition["mode"], o.condition["labels"]): o for o in outcomes if o.split == "test"}
    assert found["frozen", 256].chosen["c"] == 0.1
    assert found["finetuned", 256].chosen["lr"] == 0.01
    assert found["finetuned", 100].selection == "lr, steps and stop best of 4 on 20 of the labels"
    assert found["frozen", 100].selection == "c best of 2 on 20 of the labels"
    for outcome in found.values():
        assert len(outcome.scores) == 200 and outcome.scores.mean() > 30


def test_frozen_is_logistic_regression_on_standardised_features(task_of):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from miyagi.train.features import features

    task = task_of()
    (outcome,) = (o for o in evaluate(task, SETTINGS.model_copy(update={"modes": ["frozen"]}), 0) if o.split == "test")
    (x, y), (x_test, _) = (features(task.encoder(), task.loader(split)()) for split in ("train", "test"))
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(x, y).predict(x_test)
    assert (outcome.predicted == reference).mean() > 0.99


def test_a_thousand_examples_look_at_no_other_label(task_of):
    """VTAB's setting: whatever the other labels say, what is chosen and predicted stays. Here 100, 80 to train on."""
    honest = [o for o in evaluate(task_of(), FEW, 0) if o.split == "test"]
    labels = task_of().labels("train")
    chosen = permutation(Key(0, 0), "transfer", len(labels))[:100]
    lied = (labels + 1) % 10
    lied[chosen] = labels[chosen]
    val = (task_of().labels("val") + 3) % 10
    again = [o for o in evaluate(task_of(train=lied, val=val), FEW, 0) if o.split == "test"]
    for a, b in zip(honest, again, strict=True):
        assert np.array_equal(a.predicted, b.predicted)
        assert a.chosen == b.chosen
    lied[chosen[5]] = (lied[chosen[5]] + 1) % 10
    other = [o for o in evaluate(task_of(train=lied, val=val), FEW, 0) if o.split == "test"]
    assert any(not np.array_equal(a.predicted, b.predicted) for a, b in zip(honest, other, strict=True))


def test_the_test_split_cannot_influence_any_choice(task_of):
    honest = evaluate(task_of(), SETTINGS, 0)
    leak = evaluate(task_of(test=honest[3].predicted), SETTINGS, 0)  # on which the fine-tuned one is always right
    for a, b in zip(honest, leak, strict=True):
        assert a.chosen == b.chosen
        assert np.array_equal(a.predicted, b.predicted)
    assert leak[3].scores.mean() == 100 > leak[1].scores.mean()


def test_the_floor_is_training_from_scratch_with_the_targets_normalisation(task_of):
    task = task_of("random")
    manifest = json.loads(task.paths.manifest("other").read_text())
    assert task.start(0).mean.flatten().tolist() == pytest.approx(manifest["mean"])
    (outcome,) = (
        o for o in evaluate(task, SETTINGS.model_copy(update={"modes": ["finetuned"]}), 0) if o.split == "test"
    )
    assert (outcome.chosen["start"], outcome.chosen["steps"]) == ("scratch", 40)
    assert outcome.scores.mean() > 50


@pytest.mark.parametrize("mode", ["frozen", "finetuned"])
def test_few_labels_of_one_class_are_one_line(task_of, mode):
    labels = np.zeros(256, np.int64)
    labels[permutation(Key(0, 0), "transfer", 256)[10:]] = 1
    settings = SETTINGS.model_copy(update={"labels": [10], "modes": [mode]})
    message = "evaluate.transfer.labels: of 10 labelled images of datasets.other those that are trained on are of one"
    with pytest.raises(UserError, match=rf"^{message}[^\n]*$"):
        evaluate(task_of(train=labels), settings, 0)


def test_too_few_images_for_the_labels_asked_for(task_of, capsys):
    few = "datasets.other has 256 training images, too few for evaluate.transfer.labels 1000"
    with pytest.raises(UserError, match=few):
        evaluate(task_of(), SETTINGS.model_copy(update={"labels": [1000]}), 0)
    found = evaluate(task_of(), SETTINGS.model_copy(update={"labels": [None, 1000], "modes": ["frozen"]}), 0)
    assert [o.condition["labels"] for o in found] == [256, 256]
    assert [line for line in capsys.readouterr().err.splitlines() if "note" in line] == [
        f"miyagi: note: {few}: left out"
    ]
