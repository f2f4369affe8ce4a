"""The papers' linear layer on the frozen encoder."""

import numpy as np
import pytest
import torch

from miyagi.protocols.linear_augmented import Settings, evaluate
from miyagi.settings import Grid, Optimization

HOW = Optimization(
    optimizer="sgd", weight_decay=0.0, batch_size=64, schedule="step", looks=1, augment={"flip": 0.0, "pad": 2}
)
SETTINGS = Settings(grid=Grid(lr=[1e-4, 0.1, 1.0], steps=[60]), optimization=HOW)


def test_the_defaults_are_the_papers():
    own = Settings()
    how = own.optimization
    assert (how.optimizer, how.weight_decay, how.momentum, how.schedule) == ("sgd", 0.0, 0.9, "step")
    assert max(own.grid.lr) == 30.0


def test_close_to_logistic_regression_on_the_same_features(make_task):
    """Without augmentation it is another way to the same classifier, here scikit-learn's on unscaled features."""
    from sklearn.linear_model import LogisticRegression

    from miyagi.train.features import features

    task = make_task()
    plain = SETTINGS.model_copy(update={"optimization": HOW.model_copy(update={"recipe": "none", "augment": {}})})
    val, test = evaluate(task, plain, 0)
    (x, y), (x_test, y_test) = (features(task.encoder(), task.loader(split)()) for split in ("train", "test"))
    reference = LogisticRegression(C=1.0, max_iter=2000).fit(x, y).predict(x_test)
    assert abs(test.scores.mean() - 100 * (reference == y_test).mean()) < 6
    assert (test.predicted == reference).mean() > 0.85
    assert (val.selection, val.chosen["steps"], val.condition) == ("lr, steps and stop best of 3 on val", 60, {})


def test_the_encoder_stays_and_the_rate_is_chosen_on_val(make_task, relabelled):
    honest = evaluate(make_task(), SETTINGS, 0)
    assert honest[0].chosen["lr"] > 1e-4
    assert honest[1].scores.mean() > 60
    slow = SETTINGS.model_copy(update={"grid": Grid(lr=[1e-4], steps=[60])})
    wanted = evaluate(make_task(), slow, 0)[0].predicted
    assert evaluate(make_task(paths=relabelled({"val": wanted})), SETTINGS, 0)[0].chosen["lr"] == 1e-4
    leak = relabelled({"test": honest[1].predicted}, "leak")
    again = evaluate(make_task(paths=leak), SETTINGS, 0)
    assert again[0].chosen == honest[0].chosen
    assert np.array_equal(again[0].predicted, honest[0].predicted)
    assert again[1].scores.mean() == 100


def test_augmented_images_are_what_it_sees(make_task, monkeypatch):
    import miyagi.protocols.classifier as module

    seen = []
    plain = module.augment

    def spy(images, index, key, view, recipe, size, **how):
        seen.append((key.epoch, recipe.pad, index.tolist()))
        return plain(images, index, key, view, recipe, size, **how)

    monkeypatch.setattr(module, "augment", spy)
    evaluate(make_task(), SETTINGS.model_copy(update={"grid": Grid(lr=[0.1], steps=[9])}), 0)
    assert [epoch for epoch, _, _ in seen] == [0, 0, 0, 0, 1, 1, 1, 1, 2]  # 256 images, 64 a batch
    assert {pad for _, pad, _ in seen} == {2}
    assert sorted(i for epoch, _, index in seen if epoch == 1 for i in index) == list(range(256))


@pytest.mark.parametrize("seed", [0, 1])
def test_twice_the_same_bits(make_task, seed):
    short = SETTINGS.model_copy(update={"grid": Grid(lr=[0.1, 1.0], steps=[5])})
    first, second = (evaluate(make_task(), short, seed)[1].predicted for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.are_deterministic_algorithms_enabled()
