"""Do protocols rank the experiments alike? Kendall's tau between the tables of one data set.

The papers' question (Kolesnikov et al., CVPR 2019; Newell and Deng, CVPR 2020) is whether a linear probe says what
fine-tuning would say. Floors are left out: that learning beats not learning is agreement too cheap to count.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from miyagi.metrics.ranking import kendall_interval
from miyagi.report.differences import PARTS
from miyagi.report.tables import HEADLINE, Group, Span, finals

LEAST = 3
"""Fewer experiments have no ranking worth the name."""


@dataclass(frozen=True)
class Agreement:
    """Two protocols on one data set.

    Attributes:
        a, b: a protocol with the condition that it measured under.
        experiments: how many both measured.
        tau: Kendall's tau-b of their test values, and its 95 % interval over experiments.
    """

    dataset: str
    metric: str
    a: str
    b: str
    experiments: int
    tau: Span


def agreements(tables: Sequence[Group]) -> list[Agreement]:
    """Every two protocols (in each condition) with at least `LEAST` common experiments, by data set and metric.

    Only the layer of HEADLINE counts, only tables with at most PARTS parts, and only what both say is better when
    larger or both say is better when smaller; where all experiments are tied there is nothing to say.
    """
    found = []
    for first, second in itertools.combinations([table for table in tables if len(table.layers) <= PARTS], 2):
        if first.protocol == second.protocol or (first.dataset, first.metric) != (second.dataset, second.metric):
            continue
        for a, b in itertools.product(_values(first).items(), _values(second).items()):
            (name_a, left), (name_b, right) = a, b
            common = [experiment for experiment in left if experiment in right]
            if len(common) >= LEAST:
                tau = kendall_interval([left[e] for e in common], [right[e] for e in common])
                if tau[0] == tau[0]:
                    found.append(Agreement(first.dataset, first.metric, name_a, name_b, len(common), tau))
    return found


def _values(table: Group) -> dict[str, dict[str, float]]:
    """ "protocol, condition" -> experiment -> test value, the larger the better."""
    named = {}
    for name, lines in table.layers.items():
        layer, *condition = name.split(", ")
        if layer == HEADLINE[0]:
            named[", ".join([table.protocol, *condition])] = {
                line.experiment: line.test[0] * (1 if line.higher_is_better else -1)
                for line in finals(lines)
                if line.test and not line.is_floor
            }
    return named
