"""Who wins: the best trials and trial 0 are scored again on fresh seeds, because the best of many was also lucky.

The largest of T noisy values is too large: its noise was chosen along with it. A second score on seeds that had no
part in the choice has no such bias, so the winner and the interval of its difference to the defaults come from that.
"""

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from miyagi.data.rng import fold
from miyagi.files import write_json
from miyagi.metrics.bootstrap import interval, paired, t_interval
from miyagi.sweep.objective import train
from miyagi.sweep.session import Session
from miyagi.sweep.space import Values
from miyagi.train.loop import Diverged

TOP = 3


@dataclass(frozen=True)
class Fresh:
    """The scores of one trial on fresh seeds.

    Attributes:
        values: one a seed.
        images: one a validation image, the mean over the seeds; None for a metric that is no mean over images.
    """

    values: NDArray[np.float64]
    images: NDArray[np.float64] | None

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def span(self) -> tuple[float, float] | None:
        """95 %: bootstrap over images, else Student's t over seeds; None for one seed without images."""
        if self.images is not None:
            return interval(self.images)
        return t_interval(self.values)[1:] if len(self.values) > 1 else None

    def minus(self, other: "Fresh") -> tuple[float, float, float] | None:
        """The difference to another trial's, paired image by image (else seed by seed), with its interval."""
        if self.images is not None and other.images is not None:
            return paired(self.images, other.images)
        return t_interval(self.values - other.values) if len(self.values) > 1 else None


def candidates(study: Study, trials: dict[int, FrozenTrial]) -> list[int]:
    """Trial 0, and the TOP best of the others; where there are two objectives, of those on the Pareto front."""
    whole = [number for number, trial in trials.items() if trial.state == TrialState.COMPLETE]
    among = whole
    if len(study.directions) > 1:
        front = {trial.number for trial in study.best_trials}
        among = [number for number in whole if trials[number].number in front]
    best = sorted(among, key=lambda number: (-trials[number].values[0], number))[:TOP]
    return sorted({*best, *({0} & {*whole})})


def scored(session: Session, values: Values, number: int) -> Fresh | None:
    """Score one trial on fresh seeds, or None where one of these trainings diverges.

    What is done already is read from the session's scratch folder, so that a killed sweep goes on from there.
    """
    found = []
    for i in range(session.sweep.fresh_seeds):
        file = session.scratch / f"{number}-{i}.json"
        if not file.is_file():
            write_json(file, _train(session, values, fold(session.sweep.seed, "fresh", i) >> 33))
        found.append(json.loads(file.read_text(encoding="utf-8")))
    if any(score is None for score in found):
        return None
    images = [np.asarray(score["images"], np.float64) for score in found if score["images"] is not None]
    mean = np.mean(images, axis=0) if images else None
    return Fresh(np.asarray([score["value"] for score in found]), mean)


def _train(session: Session, values: Values, seed: int) -> dict[str, float | list[float] | None] | None:
    try:
        result = train(session.space.short(values), seed, session.sweep.objective, session.paths, session.scratch)
    except Diverged:
        return None
    return {"value": result.value, "images": None if result.images is None else result.images.tolist()}


def winner(scores: dict[int, Fresh | None]) -> int | None:
    """The number with the highest mean; of equals the smaller one, so the defaults stay where nothing is better."""
    means = {number: fresh.mean for number, fresh in sorted(scores.items()) if fresh is not None}
    return max(means, key=lambda number: means[number]) if means else None
