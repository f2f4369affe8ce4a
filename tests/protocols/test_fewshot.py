"""Episodes one by one, against scikit-learn and torch; the draw; what is said where it cannot be."""

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from threadpoolctl import threadpool_limits

from miyagi.metrics.knn import normalize
from miyagi.protocols.base import Bank, DoesNotApply
from miyagi.protocols.fewshot import Settings, _logistic, episodes, evaluate, score

SETTINGS = Settings(ways=3, shots=[1, 4], queries=6, episodes=5, iterations=60, lr=0.3)


@pytest.fixture(scope="module")
def drawn(pixels):
    return episodes(pixels["test.labels"], SETTINGS, 0, "x")


def centroid(support, y, query):
    return cosine_similarity(query, np.stack([support[y == way].mean(0) for way in range(3)])).argmax(1)


def logistic(support, y, query):
    model = LogisticRegression(C=SETTINGS.c, fit_intercept=False, tol=1e-8, max_iter=10_000)
    return model.fit(support.astype(np.float64), y).predict(query.astype(np.float64))


def cosine(support, y, query):
    """The D-dimensional gradient descent that the coefficients stand for."""
    torch.set_num_threads(1)  # products this small only wait for a second one
    support, y = torch.from_numpy(support).double(), torch.from_numpy(y)
    weight = torch.stack([support[y == way].mean(0) for way in range(3)]).requires_grad_()
    for _ in range(SETTINGS.iterations):
        logits = SETTINGS.scale * support @ torch.nn.functional.normalize(weight, dim=1).T
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y), weight)
        weight = (weight - SETTINGS.lr * gradient).detach().requires_grad_()
    return (query @ torch.nn.functional.normalize(weight, dim=1).detach().numpy().T).argmax(1)


@pytest.mark.parametrize("shot", [1, 4])
@pytest.mark.parametrize("classifier", [centroid, logistic, cosine])
def test_each_episode_against_an_independent_one(pixels, drawn, classifier, shot):
    x = normalize(pixels["test.encoder"])
    for episode, found in zip(drawn, score(x, drawn, shot, classifier.__name__, SETTINGS), strict=True):
        query, support = x[episode[:, :6].ravel()], x[episode[:, 6 : 6 + shot].ravel()]
        predicted = classifier(support, np.repeat(np.arange(3), shot), query)
        assert found == pytest.approx(100 * (predicted == np.repeat(np.arange(3), 6)).mean())


def test_logistic_has_converged(pixels):
    """At the solution a = C (y - p): the gradient is 0, for 5 shots of features that are nearly alike."""
    x = normalize(pixels["test.encoder"])[:25]
    own = np.repeat(np.eye(5, dtype=np.float32), 5, axis=0)
    cosines = (x @ x.T)[None]
    a = _logistic(cosines, own, Settings())[0]
    logits = cosines[0] @ a
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(a + (p - own)).max() < 1e-4


def test_the_cosine_classifier_learns(pixels, drawn):
    """Training moves it away from the centroids that it starts at."""
    x = normalize(pixels["test.encoder"])
    many = episodes(pixels["test.labels"], SETTINGS.model_copy(update={"episodes": 200}), 0, "x")
    start, trained = (score(x, many, 4, name, SETTINGS) for name in ("centroid", "cosine"))
    assert trained.mean() > start.mean() + 0.5


def test_the_draw(pixels, drawn):
    labels = pixels["test.labels"]
    assert drawn.shape == (5, 3, 10)
    for episode in drawn:
        assert len(set(episode.ravel())) == 30
        classes = labels[episode]
        assert (classes == classes[:, :1]).all() and len(set(classes[:, 0])) == 3
    assert np.array_equal(drawn[:3], episodes(labels, SETTINGS.model_copy(update={"episodes": 3}), 0, "x"))
    assert not np.array_equal(drawn, episodes(labels, SETTINGS, 1, "x"))
    many = episodes(labels, Settings(ways=2, shots=[1], queries=1, episodes=4000), 0, "x")
    counts = np.bincount(many[:, :, 0].ravel(), minlength=len(labels))
    per_class = np.array([counts[labels == c].sum() for c in range(10)])
    assert (np.abs(per_class - 800) < 5 * np.sqrt(800)).all()
    assert counts.max() < 8000 / 300 * 2 and (counts > 0).all()


def test_rows_say_what_they_are(write_bank, pixels):
    settings = Settings(
        ways=3, shots=[1, 4], queries=6, episodes=40, layers=["encoder", "conv1"], splits=["val", "test"]
    )
    outcomes = evaluate(Bank(write_bank(pixels)), settings, 0)
    assert len(outcomes) == 2 * 2 * 2 * 3
    assert len({(o.layer, o.split, str(o.condition)) for o in outcomes}) == len(outcomes)
    first = outcomes[0]
    assert first.condition == {"classifier": "centroid", "way": 3, "shot": 1, "classes": "unseen"}
    assert (first.unit, first.metric, first.selection, len(first.scores)) == ("episodes", "top1", "fixed", 40)
    means = {
        o.condition["shot"]: o.scores.mean()
        for o in outcomes
        if (o.layer, o.split, o.condition["classifier"]) == ("encoder", "test", "logistic")
    }
    assert 60 < means[1] < means[4]


def test_seen_or_unseen(write_bank, pixels):
    def classes(arrays, **stamp):
        bank = Bank(write_bank(arrays, str(stamp), **stamp))
        return {o.condition["classes"] for o in evaluate(bank, Settings(queries=5, episodes=2), 0)}

    assert classes(pixels, seen=[]) == {"unseen"}
    assert classes(pixels, seen=list(range(10)), pretrained_on="another_key") == {"seen"}
    assert classes(pixels, seen=[3]) == {"seen"}  # one of them is enough
    assert classes(pixels, seen=[10, 11], pretrained_on="digits") == {"unseen"}  # classes of its training split alone


def test_centring_is_by_the_training_split(write_bank, pixels):
    settings = Settings(ways=3, shots=[1], queries=6, episodes=30, classifiers=["centroid"], center=True)
    (found,) = evaluate(Bank(write_bank(pixels)), settings, 0)
    x = normalize(pixels["test.encoder"] - pixels["train.encoder"].mean(0))
    expected = score(x, episodes(pixels["test.labels"], settings, 0, "x"), 1, "centroid", settings)
    assert np.array_equal(found.scores, expected)


def test_four_classes(write_bank, pixels):
    few = pixels | {"test.labels": pixels["test.labels"] % 4}
    with pytest.raises(DoesNotApply, match=r"^evaluate\.fewshot\.ways: 5 ways, but digits\.test has 4 classes$"):
        evaluate(Bank(write_bank(few)), Settings(), 0)


def test_a_class_with_one_image(write_bank, pixels):
    labels = pixels["test.labels"].copy()
    labels[labels == 3] = 4
    labels[0] = 3
    with pytest.raises(
        DoesNotApply, match=r"15 queries and 5 shots of each class, but class 3 of digits\.test has 1 image"
    ):
        evaluate(Bank(write_bank(pixels | {"test.labels": labels})), Settings(), 0)


def test_2000_episodes_of_nearest_centroid_in_5_s():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 10_000)
    x = normalize(rng.normal(size=(10_000, 512)).astype(np.float32))
    settings = Settings(shots=[5], classifiers=["centroid"])
    with threadpool_limits(2):
        start = time.perf_counter()
        drawn = episodes(labels, settings, 0, "x")
        found = np.concatenate([score(x, drawn[i : i + 100], 5, "centroid", settings) for i in range(0, 2000, 100)])
        assert time.perf_counter() - start < 5
    assert len(found) == 2000
    assert abs(found.mean() - 20) < 2  # noise: chance
