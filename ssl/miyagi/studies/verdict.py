"""From what was measured to *confirmed*, *refuted* or *undecided at this scale*.

Every comparison but Kendall's tau is a contrast, a weighted sum of the settings' accuracies on the same seeds and
images: its scores are S x N numbers, and metrics/crossed.py says how far their mean may be off. Each is tested from
both sides: p_confirm of "the effect is not there", p_refute of "it is there, and as large as matters".

    a study:   confirm = max of its comparisons (all must hold; Berger, 1982),
               refute = their number x the smallest (one is enough; Bonferroni), p = 2 min(confirm, refute)
    the set:   Holm's correction over all studies; one that has not run counts with p = 1, so running more never takes
               a verdict away.

Below LEVEL the smaller of the two says which verdict it is, but confirmed also wants every effect to be as large as
matters; everything else is undecided, and the smallest effect that would have been found says how much that means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from miyagi.metrics.crossed import crossed
from miyagi.metrics.ranking import kendall_beyond, kendall_detectable, kendall_interval
from miyagi.metrics.significance import holm
from miyagi.report.studies import Curve
from miyagi.studies.curves import curves
from miyagi.studies.expand import experiments
from miyagi.studies.measured import Measured, Scores
from miyagi.studies.settings import BestOf, Comparison, Contrast, Kendall, PeakBetween, Same, Term, Trend

LEVEL = 0.05


@dataclass(frozen=True)
class Part:
    """One comparison's outcome.

    Attributes:
        name, form: as the study calls it.
        said: what was compared, in words; of a choice, what validation chose.
        span: the effect in points (tau for kendall), and the ends of its 95 % interval.
        claimed: the effect that the study asks for, in words.
        confirm, refute: one-sided p-values, see the module.
        enough: the estimate is as large as matters.
        detectable: the smallest effect that would have been found four times in five, in points; of kendall the true
            tau that would, None where so few experiments could not have shown any.
    """

    name: str
    form: str
    said: str
    span: tuple[float, float, float]
    claimed: str
    confirm: float
    refute: float
    enough: bool
    detectable: float | None


@dataclass(frozen=True)
class Judged:
    """One study's outcome before the correction over the set; `curves` shows more of it and decides nothing."""

    parts: Sequence[Part]
    n: int
    seeds: int
    curves: Sequence[Curve] = ()

    @property
    def confirm(self) -> float:
        return max(part.confirm for part in self.parts)

    @property
    def refute(self) -> float:
        return min(1.0, len(self.parts) * min(part.refute for part in self.parts))

    @property
    def p(self) -> float:
        return min(1.0, 2 * min(self.confirm, self.refute))

    def verdict(self, adjusted: float) -> str:
        """The verdict at the p-value that is left after the correction."""
        if adjusted >= LEVEL:
            return "undecided at this scale"
        if self.refute < self.confirm:
            return "refuted"
        return "confirmed" if all(part.enough for part in self.parts) else "undecided at this scale"


def corrected(found: Mapping[str, Judged | None]) -> dict[str, float]:
    """Every study's p-value after Holm's correction over the set; None, not run, counts with p = 1."""
    return dict(zip(found, holm([judged.p if judged else 1.0 for judged in found.values()]), strict=True))


def judge(measured: Measured, studies: int) -> Judged:
    """Test a study's comparisons.

    Args:
        measured: its runs.
        studies: how many there are in the set, which decides how small an effect could have been found.
    """
    study = measured.study
    parts = [_part(name, comparison, measured, LEVEL / studies) for name, comparison in study.comparisons.items()]
    return Judged(parts, study.n, len(measured.seeds), curves(measured))


def _part(name: str, comparison: Comparison, measured: Measured, level: float) -> Part:
    if isinstance(comparison, Kendall):
        return _kendall(name, comparison, measured, level)
    scores, said = _contrast(comparison, measured)
    mean, least = crossed(scores), comparison.minimum
    confirm, refute, enough = mean.above(0), mean.below(least), mean.value >= least
    claimed = f"at least {least:g}"
    if isinstance(comparison, Same):
        confirm, refute = max(mean.below(least), mean.above(-least)), min(mean.above(least), mean.below(-least))
        enough, claimed = abs(mean.value) <= least, f"within {least:g}"
    span = (mean.value, *mean.interval())
    return Part(name, comparison.form, said, span, claimed, confirm, refute, enough, mean.detectable(level))


def _contrast(comparison: Contrast | Trend | PeakBetween | BestOf, measured: Measured) -> tuple[Scores, str]:
    """The S x N scores of a contrast that is claimed to be positive, and what it is in words."""
    if isinstance(comparison, Contrast):
        return _difference(comparison, measured), f"{_names(comparison.plus)} - {_names(comparison.minus)}"
    if isinstance(comparison, Trend):
        steps = (
            [measured.scores(Term(experiment=name)) for name in _grid(comparison.over, measured)]
            if comparison.over
            else [_difference(step, measured) for step in comparison.steps or ()]
        )
        rise = np.tensordot(line(len(steps)), np.stack(steps), 1)
        return (rise if comparison.direction == "up" else -rise), f"{comparison.direction} over {len(steps)} steps"
    if isinstance(comparison, PeakBetween):
        grid = _grid(comparison.over, measured)
        inside = [Term(experiment=e) for e, value in grid.items() if comparison.low <= value <= comparison.high]
        outside = [Term(experiment=e) for e, value in grid.items() if not comparison.low <= value <= comparison.high]
        these, those = _best(inside, measured), _best(outside, measured)
    else:
        these, those = _best(comparison.these, measured), _best(comparison.those, measured)
    return measured.scores(these) - measured.scores(those), f"{_names([these])} - {_names([those])}, chosen on val"


def line(steps: int) -> Scores:
    """Weights that turn the values at K equally spaced steps into the rise of their fitted line from first to last.

    w_k = (K - 1) (k - mean k) / sum (k - mean k)^2
    """
    k = np.arange(steps, dtype=np.float64) - (steps - 1) / 2
    weights: Scores = k * (steps - 1) / (k**2).sum()
    return weights


def _difference(contrast: Contrast, measured: Measured) -> Scores:
    plus, minus = (reduce(np.add, map(measured.scores, terms)) for terms in (contrast.plus, contrast.minus))
    effect: Scores = plus - minus
    return effect


def _grid(name: str, measured: Measured) -> Mapping[str, float]:
    return experiments(measured.study.params["experiments"])[1][name].values


def _best(terms: Sequence[Term], measured: Measured) -> Term:
    """The term with the best validation accuracy, the first of equals."""
    return max(terms, key=lambda term: float(measured.scores(term, "val").mean()))


def _kendall(name: str, comparison: Kendall, measured: Measured, level: float) -> Part:
    a, b = ([float(measured.scores(term).mean()) for term in terms] for terms in (comparison.a, comparison.b))
    span = kendall_interval(a, b)
    if comparison.at_least is not None:
        threshold, claimed = comparison.at_least, f"tau at least {comparison.at_least:g}"
        confirm, refute = kendall_beyond(a, b, threshold)
        enough = span[0] >= threshold
        detectable, _ = kendall_detectable(len(a), threshold, level / 2)
    else:
        assert comparison.at_most is not None
        threshold, claimed = comparison.at_most, f"tau at most {comparison.at_most:g}"
        refute, confirm = kendall_beyond(a, b, threshold)
        enough = span[0] <= threshold
        _, detectable = kendall_detectable(len(a), threshold, level / 2)
    said = f"{len(a)} experiments, {_side(comparison.a, measured)} against {_side(comparison.b, measured)}"
    return Part(name, "kendall", said, span, claimed, confirm, refute, enough, detectable)


def _side(terms: Sequence[Term], measured: Measured) -> str:
    """What the terms of a ranking have in common."""
    seen = [term.measure(measured.study.measure) for term in terms]
    common = [str(value) for key, value in seen[0] if value and all(getattr(other, key) == value for other in seen)]
    return " ".join(common)


def _names(terms: Sequence[Term]) -> str:
    def shown(term: Term) -> str:
        own = [str(value) for key, value in term if key != "experiment" and value is not None]
        return f"{term.experiment} ({', '.join(own)})" if own else term.experiment

    names = " + ".join(map(shown, terms))
    return f"({names})" if len(terms) > 1 else names
