"""N-way K-shot episodes on frozen features: how well a few labelled images of new classes stand for the rest.

Each episode draws `ways` classes of a split, K images of each to learn from (the support set) and `queries` more to be
told apart (Vinyals et al., NeurIPS 2016; Snell et al., NeurIPS 2017). A score is one episode's accuracy, so the
interval is over episodes: it says how well their mean is known for these images, not for others.

    centroid   the class whose mean support feature has the largest cosine (Snell 2017; Chen et al., ICLR 2019)
    cosine     softmax of scale x cosine(w_c, f) trained on the support set from the centroids (Chen 2019, Baseline++)
    logistic   minimise 1/2 |W|^2 + C sum_i -log softmax(W f_i)[y_i], f at unit length (Tian et al., ECCV 2020)

Every solution lies in the span of the support set, w_c = sum_i a_ic f_i, so both are trained on the K N coefficients
and need the features only by their cosines: what a step costs does not depend on D.

A row's condition says whether the classes were seen in pretraining: they are `unseen` where none of the split's has the
name of one in the training split that was pretrained on, whatever data set it stands in. It is the same for the
untrained floor, so that a floor stands beside what it is the floor of.
"""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miyagi.metrics.knn import normalize
from miyagi.protocols.base import Bank, DoesNotApply, Outcome
from miyagi.settings import Frozen

Floats = NDArray[np.float32]
CHUNK = 100
"""Episodes that are solved at once: bounds the memory."""


class Settings(Frozen):
    """Settings of the few-shot protocol."""

    ways: int = Field(5, ge=2)
    shots: list[Annotated[int, Field(ge=1)]] = Field([1, 5], min_length=1)
    queries: int = Field(15, ge=1, description="of each class")
    episodes: int = Field(2000, ge=2)
    classifiers: list[Literal["centroid", "cosine", "logistic"]] = Field(
        ["centroid", "cosine", "logistic"], min_length=1
    )
    center: bool = Field(False, description="subtract the mean of the training split first (Wang et al., 2019)")
    c: float = Field(1.0, gt=0, description="logistic: inverse regularisation")
    scale: float = Field(10.0, gt=0, description="cosine: of the softmax")
    lr: float = Field(0.1, gt=0, description="cosine: learning rate")
    iterations: int = Field(100, ge=1, description="cosine and logistic: full passes over the support set")
    splits: list[Literal["val", "test"]] = Field(["test"], min_length=1, description="nothing is chosen on val")
    layers: list[str] = Field(["encoder"], min_length=1)


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """Accuracy of each episode, in percent. All layers, shots, classifiers and encoders see the same episodes.

    Raises:
        DoesNotApply: an image has several labels, a split has fewer classes than `ways`, or a class fewer images than
            an episode takes.
    """
    found = []
    for split in settings.splits:
        labels = bank.labels(split)
        if labels.ndim == 2:
            raise DoesNotApply("an image has several labels")
        drawn = episodes(labels, settings, seed, f"{bank.stamp['dataset']}.{split}")
        seen = bool(np.isin(labels, bank.stamp["seen"]).any())
        for layer in settings.layers:
            mean = bank.features("train", layer).mean(0) if settings.center else np.float32(0)
            x = normalize(bank.features(split, layer) - mean)
            for shot in settings.shots:
                for classifier in settings.classifiers:
                    scores = np.concatenate(
                        [
                            score(x, drawn[start : start + CHUNK], shot, classifier, settings)
                            for start in range(0, len(drawn), CHUNK)
                        ]
                    )
                    condition = {
                        "classifier": classifier, "way": settings.ways, "shot": shot,
                        "classes": "seen" if seen else "unseen",
                    }  # fmt: skip
                    found.append(Outcome(layer, split, "top1", scores, "fixed", unit="episodes", condition=condition))
    return found


def episodes(labels: NDArray[np.int64], settings: Settings, seed: int, place: str) -> NDArray[np.int64]:
    """Positions of the images, E x ways x (queries + largest shot): the queries come first.

    Episode e is a function of (seed, e) alone, and a K-shot support set is the beginning of a larger one.

    Args:
        labels: N.
        settings: ways, shots, queries, episodes.
        seed: of all episodes.
        place: names the images in an error message.

    Raises:
        DoesNotApply: see `evaluate`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    each = settings.queries + max(settings.shots)
    if len(classes) < settings.ways:
        raise DoesNotApply(f"evaluate.fewshot.ways: {settings.ways} ways, but {place} has {len(classes)} classes")
    if counts.min() < each:
        raise DoesNotApply(
            f"evaluate.fewshot: {settings.queries} queries and {max(settings.shots)} shots of each class, but class "
            f"{classes[counts.argmin()]} of {place} has {counts.min()} image(s)"
        )
    members = [np.flatnonzero(labels == label) for label in classes]
    drawn = np.empty((settings.episodes, settings.ways, each), np.int64)
    for number in range(settings.episodes):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
        for way, label in enumerate(rng.permutation(len(classes))[: settings.ways]):
            drawn[number, way] = members[label][rng.choice(len(members[label]), each, replace=False)]
    return drawn


def score(x: Floats, drawn: NDArray[np.int64], shot: int, classifier: str, settings: Settings) -> NDArray[np.float64]:
    """The accuracy of each episode, in percent.

    Args:
        x: N x D, at unit length.
        drawn: E x ways x images of the episodes; see `episodes`.
        shot: K.
        classifier: see above.
        settings: of the classifiers.
    """
    e, ways, _ = drawn.shape
    query = x[drawn[:, :, : settings.queries]].reshape(e, ways * settings.queries, -1)
    support = x[drawn[:, :, settings.queries : settings.queries + shot]].reshape(e, ways * shot, -1)
    own = np.repeat(np.eye(ways, dtype=np.float32), shot, axis=0)  # (ways K) x ways: which image is of which class
    if classifier == "centroid":
        centroids = support.reshape(e, ways, shot, -1).mean(2)
        length = np.linalg.norm(centroids, axis=2)
        logits = query @ centroids.transpose(0, 2, 1) / np.where(length > 0, length, 1)[:, None]
    else:
        cosines = support @ support.transpose(0, 2, 1)
        fit = _cosine if classifier == "cosine" else _logistic
        logits = (query @ support.transpose(0, 2, 1)) @ fit(cosines, own, settings)
    right = logits.argmax(2) == np.repeat(np.arange(ways), settings.queries)
    accuracy: NDArray[np.float64] = 100.0 * right.mean(1)
    return accuracy


def _softmax(logits: Floats) -> Floats:
    p = np.exp(logits - logits.max(2, keepdims=True))
    found: Floats = p / p.sum(2, keepdims=True)
    return found


def _cosine(cosines: Floats, own: Floats, settings: Settings) -> Floats:
    """Gradient descent on the mean cross-entropy of scale x cosine(w_c, f_i), in w_c's coefficients; |w_c| = 1 at last.

    The gradient of w_c is scale / |w_c| (sum_i g_ic f_i - (sum_i g_ic cos_ic) w_c / |w_c|), g = (p - y) / n.
    """
    a = np.broadcast_to(own / own.sum(0), (len(cosines), *own.shape)).copy()
    for _ in range(settings.iterations):
        products = cosines @ a
        length = np.sqrt((a * products).sum(1, keepdims=True)).clip(min=1e-12)
        cosine = products / length
        g = (_softmax(settings.scale * cosine) - own) / np.float32(len(own))
        a -= np.float32(settings.lr * settings.scale) / length * (g - (g * cosine).sum(1, keepdims=True) * a / length)
    found: Floats = a / np.sqrt((a * (cosines @ a)).sum(1, keepdims=True)).clip(min=1e-12)
    return found


def _logistic(cosines: Floats, own: Floats, settings: Settings) -> Floats:
    """Nesterov's method for a 1-strongly convex and L-smooth problem, L = 1 + C/2 x the largest eigenvalue."""
    largest = np.linalg.eigvalsh(cosines)[:, -1].clip(min=0)
    smooth = (1 + settings.c / 2 * largest).astype(np.float32)[:, None, None]
    momentum = (np.sqrt(smooth) - 1) / (np.sqrt(smooth) + 1)
    a = ahead = np.zeros((len(cosines), *own.shape), np.float32)
    for _ in range(settings.iterations):
        step = ahead - (ahead + np.float32(settings.c) * (_softmax(cosines @ ahead) - own)) / smooth
        a, ahead = step, step + momentum * (step - a)
    return a
