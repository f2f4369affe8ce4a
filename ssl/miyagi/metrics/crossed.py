"""A mean over seeds and images at once: both are samples, and each is seen with all of the other (crossed).

Other seeds would give other encoders, other images would be easier or harder. With x_si the score of seed s on image i,
and the means of the rows and of the columns

    error^2 = var_s(x_s.) / S + var_i(x_.i) / N

(Owen, "The pigeonhole bootstrap", 2007: what a bootstrap over both estimates, rather too large than too small). The
mean over its error has Student's t distribution, about, with degrees of freedom by Satterthwaite (1946):

    df = (a + b)^2 / (a^2 / (S - 1) + b^2 / (N - 1))        with a and b the two terms above.

With one seed the first term is unknown and left out: the statement is about other images alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Mean:
    """A mean with what is known of its error.

    Attributes:
        value: the mean, in the scores' unit.
        error: its standard error.
        df: the degrees of freedom behind `error`.
    """

    value: float
    error: float
    df: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The ends of the interval, low before high."""
        half = self.error * _t().ppf((1 + level) / 2, self.df)
        return float(self.value - half), float(self.value + half)

    def above(self, threshold: float) -> float:
        """One-sided p-value of "the true mean is at most `threshold`": small where it lies above."""
        if self.error == 0:
            return float(self.value <= threshold)
        return float(_t().sf((self.value - threshold) / self.error, self.df))

    def below(self, threshold: float) -> float:
        """One-sided p-value of "the true mean is at least `threshold`": small where it lies below."""
        if self.error == 0:
            return float(self.value >= threshold)
        return float(_t().cdf((self.value - threshold) / self.error, self.df))

    def detectable(self, level: float, power: float = 0.8) -> float:
        """The smallest true mean that a two-sided test at `level` finds with probability `power`, at this error and df.

        The test statistic has a noncentral t distribution around mean / error; the far tail counts for nothing.
        """
        from scipy.optimize import brentq
        from scipy.stats import nct

        if self.error == 0:
            return 0.0
        critical = _t().ppf(1 - level / 2, self.df)

        def missing(shift: float) -> float:
            return float(nct.sf(critical, self.df, shift)) - power

        upper = critical + 1.0
        while missing(upper) < 0:
            upper *= 2
        return float(self.error * brentq(missing, 0.0, upper))


def crossed(scores: ArrayLike) -> Mean:
    """The mean of S x N scores, one a seed and image, e.g. differences between two encoders in percentage points.

    Raises:
        ValueError: `scores` is not S >= 1 times N >= 2 finite numbers.
    """
    x = np.asarray(scores, np.float64)
    if x.ndim != 2 or not len(x) or x.shape[1] < 2 or not np.isfinite(x).all():
        raise ValueError(f"expected S x N finite scores with N >= 2, got an array of shape {x.shape}")
    seeds, images = x.shape
    a = float(x.mean(1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    b = float(x.mean(0).var(ddof=1)) / images
    spread = (a**2 / (seeds - 1) if seeds > 1 else 0.0) + b**2 / (images - 1)
    return Mean(float(x.mean()), (a + b) ** 0.5, (a + b) ** 2 / spread if spread else float(images - 1))


def _t() -> Any:
    from scipy.stats import t  # a second to import

    return t
