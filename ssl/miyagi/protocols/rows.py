"""From a protocol's outcomes to `P.json`: rows that say what they are, their summary, the predictions behind them.

Every stage that evaluates writes by way of this file, so a row of one family has the stamps of any other. A row's
`condition` says what a protocol varied inside one run ({"fraction": 0.01, "labels": 100}, {"shot": 1, "way": 5}), its
`draw` which of several repetitions under one condition it is: rows whose conditions differ never meet in a column,
draws are averaged like seeds.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save_file

from miyagi.code import code_digest, declared
from miyagi.files import canonical, digest, replacing, write_json
from miyagi.metrics.bootstrap import interval
from miyagi.paths import Paths
from miyagi.protocols.base import Outcome
from miyagi.settings import Frozen

Row = dict[str, Any]


class Rows:
    """The rows of one protocol on one experiment and seed, gathered data set by data set.

    Args:
        stage: the stage that evaluates, whose declared code is the rows' code identity.
        name: the experiment.
        seed: its seed.
        protocol: the protocol's key.
        settings: the protocol's settings; their digest keeps unequal measurements apart.
        paths: the project's files.
    """

    def __init__(self, stage: str, name: str, seed: int, protocol: str, settings: Frozen, paths: Paths) -> None:
        self.paths, self.place = paths, (name, seed, protocol)
        self.stamp = {
            "experiment": name,
            "method": yaml.safe_load(paths.experiment(name).read_text(encoding="utf-8"))["method"],
            "protocol": protocol,
            "settings": digest(settings.model_dump(mode="json")),
            "seed": seed,
            "code": code_digest(declared(paths.dag, stage, {"protocol": protocol})),
        }
        self.rows: list[Row] = []
        self.kept: dict[str, NDArray[Any]] = {}

    def add(
        self,
        dataset: str,
        data: str,
        outcomes: Iterable[Outcome],
        width: Callable[[str], int],
        labels: Callable[[str], NDArray[np.int64]],
    ) -> None:
        """Stamp what was measured on one data set.

        Args:
            dataset: its key.
            data: the digest of its betons.
            outcomes: what the protocol measured.
            width: a layer -> its dimensions.
            labels: a split -> the labels of its images.
        """
        for outcome in outcomes:
            value, low, high = outcome.span or (float(outcome.scores.mean()), *interval(outcome.scores))
            self.rows.append(
                {
                    **self.stamp,
                    "dataset": dataset,
                    "split": outcome.split,
                    "layer": outcome.layer,
                    "dimensions": outcome.dimensions or width(outcome.layer),
                    "metric": outcome.metric,
                    "condition": dict(outcome.condition),
                    "draw": outcome.draw,
                    "value": value,
                    "low": low,
                    "high": high,
                    "interval": f"bootstrap over {outcome.unit}, 95 %",
                    "n": outcome.n or len(outcome.scores),
                    "selection": outcome.selection,
                    "chosen": outcome.chosen,
                    "data": data,
                    "higher_is_better": outcome.higher_is_better,
                }
            )
            if outcome.predicted is not None:
                self.kept[place(self.rows[-1])] = outcome.predicted
                self.kept[f"{dataset}.{outcome.split}.labels"] = labels(outcome.split)
            else:
                self.kept[f"{place(self.rows[-1])}.{outcome.metric}.scores"] = outcome.scores
            if outcome.redrawn is not None:
                self.kept[f"{place(self.rows[-1])}.{outcome.metric}.redrawn"] = outcome.redrawn

    def write(self) -> dict[str, float]:
        """Write `P.json` and the predictions behind it.

        Returns:
            The summary: "<dataset>.<split>.<layer>[.<condition>][.<draw>].<metric>" -> value.
        """
        summary = {f"{place(row)}.{row['metric']}": row["value"] for row in self.rows}
        if len(summary) < len(self.rows):
            raise ValueError(f"{'-'.join(map(str, self.place))}: two rows cannot be told apart")
        with replacing(self.paths.predictions(*self.place)) as temporary:
            save_file(self.kept, str(temporary), metadata={"miyagi": canonical({"protocol": self.stamp["protocol"]})})
        write_json(self.paths.rows(*self.place), {"summary": summary, "rows": self.rows})
        return summary


def place(row: Mapping[str, Any]) -> str:
    """What names a row inside its file: "<dataset>.<split>.<layer>", then its condition and its draw where it has one.

    Only letters, digits, `_`, `-` and `.` of a condition stand in it, as MLflow asks of a metric's name.
    """
    condition = "_".join(f"{key}_{value}" for key, value in sorted(row["condition"].items()))
    parts = [row["dataset"], row["split"], row["layer"]]
    if condition:
        parts.append("".join(c if c.isalnum() or c in "_-." else "_" for c in condition))
    if row["draw"] is not None:
        parts.append(f"draw_{row['draw']}")
    return ".".join(parts)
