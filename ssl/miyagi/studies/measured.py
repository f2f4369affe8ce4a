"""What a study's runs measured: the scores of a term, seed by seed and image by image, from the stages' own files."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from miyagi.errors import UserError
from miyagi.paths import Paths
from miyagi.protocols.rows import place as place_of
from miyagi.report import differences
from miyagi.report.tables import Predictions, Row
from miyagi.studies.settings import Measure, Study, Term


class NotRun(UserError):
    """A study, as its file stands, has not run to its end."""


Scores = NDArray[np.float64]
"""S x N, one a seed and test image, in percent; an error is turned round, so that more is better."""


@dataclass
class Measured:
    """The files of one study.

    Attributes:
        name: the study's.
        study: its settings.
        trees: arm -> the worktree that holds its runs.
    """

    name: str
    study: Study
    trees: dict[str, Paths]
    _read: dict[tuple[Any, ...], tuple[list[Row], Predictions]] = field(default_factory=dict)
    _labels: dict[tuple[Any, ...], NDArray[Any]] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        seeds: list[int] = self.study.params["seeds"]
        return seeds

    def scores(self, term: Term, split: str = "test") -> Scores:
        """The scores of one term; repetitions with other labelled images (draws) are averaged.

        Raises:
            UserError: a stage has not run, measured nothing of the kind, or saw other images than the study says.
        """
        measure = term.measure(self.study.measure)
        found = np.stack([self._of_a_seed(term, measure, seed, split) for seed in self.seeds])
        promised = split == "test" and measure.dataset == self.study.measure.dataset
        if promised and found.shape[1] != self.study.n:
            raise UserError(f"studies/{self.name}.yaml: n is {self.study.n}, but {term.experiment} was measured on "
                            f"{found.shape[1]} test images of {measure.dataset}")  # fmt: skip
        return found

    def _of_a_seed(self, term: Term, measure: Measure, seed: int, split: str) -> Scores:
        arm = term.arm or next(iter(self.trees))
        rows, kept = self._file(arm, term.experiment, seed, measure.protocol)
        wanted = {"split": split, "dataset": measure.dataset, "layer": measure.layer, "metric": measure.metric}
        mine = [
            row
            for row in rows
            if all(row[key] == value for key, value in wanted.items())
            and all(row["condition"].get(key) == value for key, value in measure.condition.items())
        ]
        where = f"{term.experiment}, seed {seed}, {measure.protocol}"
        if len({place_of({**row, "draw": None}) for row in mine}) != 1:
            raise UserError(f"studies/{self.name}.yaml: {where}: {len(mine)} rows are {wanted | measure.condition}, "
                            "not one; say layer and condition")  # fmt: skip
        scores = [one for row in mine if (one := differences.scores(row, kept)) is not None]
        if len(scores) < len(mine):
            raise UserError(f"studies/{self.name}.yaml: {where}: {measure.metric} is no mean over images")
        self._same_images(kept, measure.dataset, split, where)
        sign = 1.0 if mine[0]["higher_is_better"] else -1.0
        mean: Scores = sign * np.mean(np.stack(scores), axis=0)
        return mean

    def _file(self, arm: str, experiment: str, seed: int, protocol: str) -> tuple[list[Row], Predictions]:
        key = (arm, experiment, seed, protocol)
        if key not in self._read:
            paths = self.trees[arm]
            try:
                rows = json.loads(paths.rows(experiment, seed, protocol).read_text(encoding="utf-8"))["rows"]
                self._read[key] = rows, load_file(paths.predictions(experiment, seed, protocol))
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                raise NotRun(f"{self.name}: {experiment}-{seed}-{protocol} cannot be read ({type(error).__name__}); "
                                f"run: miyagi study run {self.name}") from None  # fmt: skip
        return self._read[key]

    def _same_images(self, kept: Predictions, dataset: str, split: str, where: str) -> None:
        """Scores are paired image by image, across arms too."""
        labels = kept.get(f"{dataset}.{split}.labels", np.empty(0))
        if not np.array_equal(self._labels.setdefault((dataset, split), labels), labels):
            raise UserError(f"{self.name}: {where} saw other images of {dataset}; run: miyagi study run {self.name}")
