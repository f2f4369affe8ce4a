"""What training shows of itself: online kNN, how views lie, signs of collapse. It reads the encoder, never the loop."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from miyagi.data.augment import augment
from miyagi.data.loader import Loader, Raw
from miyagi.data.rng import Key
from miyagi.metrics.alignment import alignment, similarity_quantiles, uniformity
from miyagi.metrics.collapse import WIDTH, effective_rank, embedding_std, threshold
from miyagi.metrics.knn import knn
from miyagi.nn.encoders.base import Encoder
from miyagi.settings import Monitor, ViewRecipe
from miyagi.train.features import features

KEY = Key(0, 0)
"""Of the views that are compared: the same at each look and for each seed, so that figures differ by the encoder."""


class OnlineMonitor:
    """kNN of validation images among training images, the embedding's spread, and how augmented views lie.

    Args:
        settings: how often, how many images, how many neighbours.
        train, val: loaders in the file's order, limited to `settings.images`.
        recipes: the experiment's view recipes; the first two (or the only one, twice) make the pairs. None: no pairs.
    """

    def __init__(self, settings: Monitor, train: Loader, val: Loader, recipes: Sequence[ViewRecipe] = ()) -> None:
        self.settings = settings
        self.train = train
        self.val = val
        self.recipes = recipes if settings.pairs > 1 else ()

    def __call__(self, encoder: Encoder, epoch: int, last: bool) -> dict[str, float]:
        """The figures after `epoch` (counted from 1), or nothing where it is not their turn.

        Returns:
            knn: top-1 accuracy in percent, where there are labels to tell apart; std and rank: see metrics/collapse.py;
            collapsed: 1, only where std is below `settings.collapse_std`, told for 256 dimensions or fewer;
            alignment, uniformity, pos_q* and neg_q*, of the encoder's output for two views of each image: see
            metrics/alignment.py.
        """
        if not self.settings.every or (epoch % self.settings.every and not last):
            return {}
        bank, labels = features(encoder, self.train())
        first: list[Raw] = []
        queries, truth = features(encoder, self._keeping(first))
        k = min(self.settings.k, len(bank))
        std, least = embedding_std(queries), threshold(self.settings.collapse_std, queries.shape[1])
        found = {
            # Of one class alone, every answer would be right.
            **({"knn": 100 * float((knn(bank, labels, queries, k) == truth).mean())} if len(set(labels)) > 1 else {}),
            "std": std,
            "rank": effective_rank(queries),
        }
        if std < least:
            print(
                f"warning: the embedding has collapsed after epoch {epoch}: its standard deviation is {std:.4f}, "
                f"below {least:.4f} (pretrain.monitor.collapse_std {self.settings.collapse_std:g}, told for {WIDTH} "
                f"dimensions or fewer; here are {queries.shape[1]})",
                file=sys.stderr,
            )
            found["collapsed"] = 1.0
        return found | (self._pairs(encoder, first) if sum(len(raw.index) for raw in first) > 1 else {})

    def _keeping(self, first: list[Raw]) -> Iterator[Raw]:
        """The validation batches; `first` gets the images that pairs are made of, so that they are decoded once."""
        left = self.settings.pairs if self.recipes else 0
        for raw in self.val():
            if left > 0:
                first.append(Raw(raw.image[:left], raw.label[:left], raw.index[:left]))
                left -= len(raw.index)
            yield raw

    def _pairs(self, encoder: Encoder, batches: list[Raw]) -> dict[str, float]:
        one, other = self.recipes[0], self.recipes[1 % len(self.recipes)]
        first, _ = features(encoder, batches, partial(_view, "monitor/first", one))
        second, _ = features(encoder, batches, partial(_view, "monitor/second", other))
        return {
            "alignment": alignment(first, second),
            "uniformity": (uniformity(first) + uniformity(second)) / 2,
            **similarity_quantiles(first, second),
        }


def _view(name: str, recipe: ViewRecipe, raw: Raw) -> Tensor:
    return augment(raw.image, raw.index, KEY, name, recipe, raw.image.shape[-1])
