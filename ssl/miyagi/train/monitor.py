"""What training shows of itself: online kNN and signs of collapse. It reads the encoder and never touches the loop."""

import sys

from miyagi.data.loader import Loader
from miyagi.metrics.collapse import effective_rank, embedding_std
from miyagi.metrics.knn import knn
from miyagi.nn.encoders.base import Encoder
from miyagi.settings import Monitor
from miyagi.train.features import features


class OnlineMonitor:
    """kNN of validation images among training images, standard deviation and rank of the embedding.

    Args:
        settings: how often, how many images, how many neighbours.
        train, val: loaders in the file's order, limited to `settings.images`.
    """

    def __init__(self, settings: Monitor, train: Loader, val: Loader) -> None:
        self.settings = settings
        self.train = train
        self.val = val

    def __call__(self, encoder: Encoder, epoch: int, last: bool) -> dict[str, float]:
        """The figures after `epoch` (counted from 1), or nothing where it is not their turn.

        Returns:
            knn: top-1 accuracy in percent; std and rank: see metrics/collapse.py.
        """
        if not self.settings.every or (epoch % self.settings.every and not last):
            return {}
        bank, labels = features(encoder, self.train())
        queries, truth = features(encoder, self.val())
        k = min(self.settings.k, len(bank))
        found = {
            "knn": 100 * float((knn(bank, labels, queries, k) == truth).mean()),
            "std": embedding_std(queries),
            "rank": effective_rank(queries),
        }
        if found["std"] < self.settings.collapse_std:
            print(
                f"warning: the embedding has collapsed after epoch {epoch}: its standard deviation is "
                f"{found['std']:.4f}, below {self.settings.collapse_std} (pretrain.monitor.collapse_std)",
                file=sys.stderr,
            )
        return found
