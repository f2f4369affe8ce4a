"""The linear probe on every tap and on the head's output: where in the network the representation is (tutorial, Q. 10).

Pretext tasks may peak before the last layer (Zhang et al., ECCV 2016; Kolesnikov et al., CVPR 2019), and a projection
head throws information away (Chen et al., ICML 2020). The row of layer `best` is the layer with the best validation
accuracy: its test value is that layer's own, read once, after the choice.
"""

from typing import Annotated

from pydantic import Field

from miyagi.protocols.base import Bank, Outcome, classify
from miyagi.protocols.linear_fits import logistic
from miyagi.settings import Frozen, Positive


class Settings(Frozen):
    """Settings of the layer-wise probe; see `linear`."""

    layers: Annotated[list[str], Field(min_length=2)] | None = Field(None, description="null: every layer in the bank")
    c: list[Positive] = Field([0.001, 0.01, 0.1, 1.0], min_length=1)
    max_iterations: int = Field(300, ge=1)
    tolerance: float = Field(1e-3, gt=0)


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy of logistic regression on each layer, and on the one chosen on val; `seed` has no effect."""
    layers = settings.layers or bank.layers
    own = settings.c, settings.max_iterations, settings.tolerance
    outcomes = classify(bank, layers, lambda train, val: logistic(train, val, *own))
    vals = {outcome.layer: outcome for outcome in outcomes if outcome.split == "val"}
    best = max(layers, key=lambda layer: vals[layer].scores.mean())
    rule = f"layer best of {len(layers)} on val, {vals[best].selection}"
    return outcomes + [
        Outcome(
            "best", outcome.split, outcome.metric, outcome.scores, rule, {"layer": best, **outcome.chosen},
            predicted=outcome.predicted, dimensions=bank.width(best),
        )
        for outcome in outcomes if outcome.layer == best
    ]  # fmt: skip
