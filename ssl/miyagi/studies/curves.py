"""A curve for each comparison that goes over a grid: how the score goes with what was varied, claimed or not."""

from miyagi.metrics.crossed import crossed
from miyagi.report.studies import Curve
from miyagi.report.trials import is_number, short
from miyagi.studies.expand import experiments
from miyagi.studies.measured import Measured
from miyagi.studies.settings import PeakBetween, Term, Trend


def curves(measured: Measured) -> tuple[Curve, ...]:
    """The mean test score at each of a grid's values, in percent, with its 95 % interval over seeds and images.

    Raises:
        UserError: what `Measured.scores` raises.
    """
    comparisons = measured.study.comparisons.items()
    return tuple(
        _curve(name, comparison.over, measured)
        for name, comparison in comparisons
        if isinstance(comparison, Trend | PeakBetween) and comparison.over
    )


def _curve(name: str, grid: str, measured: Measured) -> Curve:
    entries = measured.study.params["experiments"]
    tried = experiments(entries)[1][grid].values
    means = [crossed(measured.scores(Term(experiment=experiment))) for experiment in tried]
    return Curve(
        name=name,
        setting=", ".join(entries[grid].get("vary", [grid])),
        values=tuple(value if is_number(value) else short(value) for value in tried.values()),
        points=tuple((mean.value, *mean.interval()) for mean in means),
    )
