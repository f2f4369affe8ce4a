"""Samplers and pruners by name. A sampler is made anew for each trial, seeded by the trial's number.

So a trial's values depend on the trials before it and on nothing that a process remembers: a sweep that is killed and
started again draws what an uninterrupted one draws.
"""

from typing import Any

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, QMCSampler, RandomSampler, TPESampler

from miyagi.settings import Sweep
from miyagi.sweep.space import Space, label

STARTUP, COMPARED = 5, 3
"""Trials before tpe and gp take up their model, and whole ones before a median says what is behind."""


def sampler(sweep: Sweep, space: Space, number: int) -> BaseSampler:
    """The sampler of trial `number`. Trial 0 is the experiment itself, and in a grid each number is a point."""
    seed = sweep.seed + number
    base: BaseSampler = RandomSampler(seed)
    if sweep.sampler == "tpe":
        base = TPESampler(multivariate=True, group=True, n_startup_trials=STARTUP, seed=seed)
    elif sweep.sampler == "gp":
        base = GPSampler(n_startup_trials=STARTUP, seed=seed, warn_independent_sampling=False)
    elif sweep.sampler == "qmc":  # one sequence, whose place the study remembers
        base = QMCSampler(
            scramble=True, seed=sweep.seed, independent_sampler=base,
            warn_asynchronous_seeding=False, warn_independent_sampling=False,
        )  # fmt: skip
    if number == 0:
        return PartialFixedSampler(_plain(space.defaults), base)
    return PartialFixedSampler(_plain(space.points[number - 1]), base) if sweep.sampler == "grid" else base


def pruner(sweep: Sweep, epochs: int) -> BasePruner:
    """The pruner; `epochs` is the length of a trial."""
    if sweep.pruner == "median":
        return MedianPruner(n_startup_trials=COMPARED)
    if sweep.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return NopPruner()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {path: label(value) for path, value in values.items()}
