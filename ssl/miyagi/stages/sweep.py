"""sweep@E: an experiment's entry -> `runs/E/experiment.yaml`, the total description of what will be trained.

An experiment with a `sweep:` block is tuned first; any other passes through, without torch and without betons.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import yaml

from miyagi.files import write_text
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.settings import Experiment
from miyagi.sweep import table

HEADER = "# Written by `miyagi sweep`: every value that decides the training. Edit params.yaml instead.\n"
Tracked = Callable[[str, str, Mapping[str, Any]], AbstractContextManager[Any]]


class Untracked:
    """What a trial tells, told to nobody."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""


def untracked(target: str, fingerprint: str, params: Mapping[str, Any]) -> AbstractContextManager[Untracked]:
    return nullcontext(Untracked())


def run(name: str, params: Params, paths: Paths, tracked: Tracked = untracked) -> Experiment:
    """Resolve the experiment, tuned where it asks for it, and write it down, keys sorted, no value left to a default.

    Args:
        name: the experiment.
        params: the whole of params.yaml.
        paths: the project's files.
        tracked: (target, fingerprint, params) -> what tracks one trial.

    Raises:
        UserError: the entry or its sweep is not possible.
    """
    if params.sweep(name) is None:
        experiment, trials = params.experiment(name), table.text([], [])
    else:
        from miyagi.sweep.tune import tune  # torch takes seconds to import

        found = tune(name, params, paths, tracked)
        experiment, trials = found.experiment, found.trials
    text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=True, allow_unicode=True)
    write_text(paths.trials(name), trials)
    write_text(paths.experiment(name), HEADER + text)
    return experiment


def work(name: str, params: Params, paths: Paths, tracked: Tracked = untracked) -> None:
    """Run trials of the experiment's sweep, beside the process that runs the stage.

    Raises:
        UserError: the experiment has no sweep, or one that cannot be shared.
    """
    from miyagi.sweep.tune import join

    join(name, params, paths, tracked)
