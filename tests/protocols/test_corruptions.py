"""The protocol on corrupted digits; the operations have tests of their own (tests/data/corruptions)."""

import numpy as np
import pytest

from miyagi.data.corruptions import COMMON, TABLE, corrupt
from miyagi.errors import UserError
from miyagi.protocols.corruptions import Settings, evaluate

SETTINGS = Settings(
    corruptions=["gaussian_noise", "contrast", "speckle_noise"], severities=[1, 5], images=100, c=[0.0001, 0.1]
)


@pytest.fixture
def outcomes(make_task):
    return evaluate(make_task(), SETTINGS, 0)


def test_rows(outcomes):
    assert [(o.metric, *o.condition.values()) for o in outcomes] == [
        ("top1", "none", 0),
        ("top1", "gaussian_noise", 1), ("top1", "gaussian_noise", 5), ("error", "gaussian_noise"),
        ("top1", "contrast", 1), ("top1", "contrast", 5), ("error", "contrast"),
        ("top1", "speckle_noise", 1), ("top1", "speckle_noise", 5),  # an extra one: no part of the mean error
    ]  # fmt: skip
    assert {(o.split, o.layer, len(o.scores)) for o in outcomes} == {("test", "encoder", 100)}
    assert {o.higher_is_better for o in outcomes if o.metric == "error"} == {False}
    assert {o.higher_is_better for o in outcomes if o.metric == "top1"} == {True}
    assert outcomes[0].selection == "c best of 2 on val" and outcomes[0].chosen["c"] == 0.1


def test_an_error_is_the_mean_miss_over_severities(outcomes):
    for i in (3, 6):
        expected = 100 - (outcomes[i - 2].scores + outcomes[i - 1].scores) / 2
        assert np.array_equal(outcomes[i].scores, expected)


def test_corruption_hurts_and_more_of_it_more(outcomes):
    clean, weak, strong = (outcomes[i].scores.mean() for i in (0, 1, 2))
    assert clean >= weak > strong
    assert outcomes[5].scores.mean() < clean


def test_the_classifier_is_fitted_to_clean_images_and_sees_corrupted_ones(make_task, outcomes):
    """Against scikit-learn on clean features, asked about images that were corrupted by hand."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from miyagi.train.features import features

    task = make_task()
    encoder = task.encoder().eval()
    x, y = features(encoder, task.loader("train")())
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(x, y)
    (raw,) = task.loader("test", limit=100)()
    with torch.no_grad():
        z = encoder(corrupt("contrast", 5, raw.image / 255, raw.index)).numpy()
    hits = 100.0 * (model.predict(z) == raw.label.numpy())
    assert (hits == outcomes[5].scores).mean() > 0.98


def test_the_test_split_cannot_influence_the_choice(make_task, relabelled, outcomes):
    other = np.random.default_rng(0).integers(0, 10, 200)
    again = evaluate(make_task(paths=relabelled({"test": other})), SETTINGS, 0)
    assert [o.chosen for o in again] == [o.chosen for o in outcomes]
    assert again[0].scores.mean() < 40 < outcomes[0].scores.mean()


def test_twice_the_same_bits(make_task, outcomes):
    again = evaluate(make_task(), SETTINGS, 0)
    assert [o.scores.tolist() for o in again] == [o.scores.tolist() for o in outcomes]


def test_by_default_all_of_them():
    assert Settings().corruptions is None and len(TABLE) == 19 and len(COMMON) == 15


def test_an_unknown_corruption_is_one_line(make_task):
    with pytest.raises(
        UserError, match=r"evaluate\.corruptions\.corruptions: there is no 'fogg'; did you mean 'fog'\?"
    ):
        evaluate(make_task(), SETTINGS.model_copy(update={"corruptions": ["fogg"]}), 0)
