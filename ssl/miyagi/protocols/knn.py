"""Weighted nearest neighbours on frozen features (Wu et al., CVPR 2018): k 200, temperature 0.1 by convention.

Nothing is trained, so the number says what the metric space holds. A list of k is chosen from on validation.
"""

from typing import Annotated

from pydantic import Field

from miyagi.metrics.knn import knn
from miyagi.protocols.base import Bank, DoesNotApply, Features, Fitted, Outcome, best_on_val, classify
from miyagi.settings import Frozen


class Settings(Frozen):
    """Settings of the kNN protocol."""

    k: Annotated[int, Field(ge=1)] | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        200, description="or a list to choose from"
    )
    temperature: float = Field(0.1, gt=0)
    layers: list[str] = Field(["encoder"], min_length=1)


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy of the test images among the training images; `seed` has no effect.

    Raises:
        DoesNotApply: k is larger than the training split, or see `check_classes`.
    """

    def fit(train: Features, val: Features) -> Fitted:
        candidates = settings.k if isinstance(settings.k, list) else [settings.k]
        if max(candidates) > len(train.x):
            raise DoesNotApply(
                f"evaluate.knn.k: {max(candidates)} neighbours, but the bank holds {len(train.x)} training images"
            )

        def accuracy(k: int) -> float:
            return float((knn(train.x, train.y, val.x, k, settings.temperature) == val.y).mean())

        k, rule = best_on_val(candidates, accuracy)
        return Fitted(lambda x: knn(train.x, train.y, x, k, settings.temperature), {"k": k}, f"k {rule}")

    return classify(bank, settings.layers, fit)
