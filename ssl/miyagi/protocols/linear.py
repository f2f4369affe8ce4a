"""A linear classifier on frozen features: logistic regression, and on request the papers' SGD (linear_fits.py).

Logistic regression is convex, so its number has no learning rate in it. Papers report SGD, whose learning rate is
nothing like the one of pretraining: up to 30, without weight decay (He et al., CVPR 2020). What either leaves open is
chosen on validation.
"""

from typing import Annotated, Literal

from pydantic import Field

from miyagi.protocols import linear_fits
from miyagi.protocols.base import Bank, Outcome, classify
from miyagi.settings import Frozen, Positive


class Settings(Frozen):
    """Settings of the linear protocol."""

    class Sgd(Frozen):
        """Settings of the solver `sgd`; the defaults are for standardised features."""

        lr: list[Positive] = Field([0.01, 0.1, 1.0, 10.0, 30.0], min_length=1)
        weight_decay: list[Annotated[float, Field(ge=0)]] = Field([0.0], min_length=1)
        epochs: int = Field(20, ge=1)
        batch_size: int = Field(256, ge=1)
        momentum: float = Field(0.9, ge=0, lt=1)

    solvers: list[Literal["lbfgs", "sgd"]] = Field(["lbfgs"], min_length=1, description="a row each")
    c: list[Positive] = Field(
        [0.001, 0.01, 0.1, 1.0], min_length=1, description="lbfgs: inverse regularisation, chosen from"
    )
    max_iterations: int = Field(300, ge=1, description="lbfgs")
    tolerance: float = Field(1e-3, gt=0, description="lbfgs: largest gradient at which it stops")
    sgd: Sgd = Sgd()
    layers: list[str] = Field(["encoder"], min_length=1)


def evaluate(bank: Bank, settings: Settings, seed: int) -> list[Outcome]:
    """Top-1 accuracy on each layer; `seed` decides SGD's order of the images. SGD's rows say so in their condition."""
    found = []
    if "lbfgs" in settings.solvers:
        own = settings.c, settings.max_iterations, settings.tolerance
        found += classify(bank, settings.layers, lambda train, val: linear_fits.logistic(train, val, *own))
    if "sgd" in settings.solvers:
        run = settings.sgd.model_dump()
        found += classify(
            bank, settings.layers, lambda train, val: linear_fits.sgd(train, val, **run, seed=seed), {"solver": "sgd"}
        )
    return found
