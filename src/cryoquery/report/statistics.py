"""Statistics of few paired runs: intervals, tests, and what they cannot tell.

Two things vary between experiments: the seed (the initial labels, the order of training, ties), and
the micrographs that happen to be held out. A difference counts here when it stands out from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from cryoquery.picking.intervals import LEVEL, Interval

ALPHA = 0.05
ONE_SIDED_ALPHA = ALPHA / 2
"""Level of one-sided tests, as in trials of non-inferiority: they agree with two-sided 95 % intervals."""
POWER = 0.8
N_REPLICATES = 2000


@dataclass(frozen=True)
class Difference:
    """Paired differences, and how far their mean may be from the truth.

    The standard error has two parts, one from the seeds and one from the held-out micrographs. They
    are added as variances, and the degrees of freedom follow from Welch (1947) and Satterthwaite
    (1946). A p value is the larger of this test's and of the paired t-test over the seeds alone.
    """

    seeds: tuple[int, ...]
    """Seeds that both runs have, ascending; only these are paired."""
    by_seed: NDArray[np.float64]
    """(n,) difference of each seed."""
    over_micrographs: NDArray[np.float64] | None = None
    """(n, b) the same differences, on ``b`` resamples of the held-out micrographs."""
    micrograph_df: int = 0
    """Held-out micrographs less their groups."""

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(self.by_seed.mean())

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None with a single one."""
        return float(self.by_seed.std(ddof=1)) if len(self.by_seed) > 1 else None

    @property
    def _variances(self) -> tuple[float, float]:
        """Squared standard errors of the mean, from the seeds and from the micrographs."""
        n = len(self.by_seed)
        from_seeds = float(self.by_seed.var(ddof=1)) / n
        if self.over_micrographs is None or self.micrograph_df < 1:
            return from_seeds, 0.0
        return from_seeds, float(self.over_micrographs.mean(axis=0).var(ddof=1))

    @property
    def standard_error(self) -> float | None:
        """Of the mean, over seeds and held-out micrographs; None with a single seed."""
        return float(np.sqrt(sum(self._variances))) if len(self.by_seed) > 1 else None

    @property
    def df(self) -> float:
        """Degrees of freedom of the standard error."""
        from_seeds, from_micrographs = self._variances
        below = from_seeds**2 / (len(self.by_seed) - 1)
        if from_micrographs > 0:
            below += from_micrographs**2 / self.micrograph_df
        return (from_seeds + from_micrographs) ** 2 / below if below > 0 else len(self.by_seed) - 1.0

    @property
    def _errors(self) -> tuple[tuple[float, float], ...]:
        """(standard error, degrees of freedom) over the seeds alone, and over both.

        A test must pass with each: micrographs add variance, but also degrees of freedom, and with
        two or three seeds the second can outweigh the first.
        """
        n = len(self.by_seed)
        if n < 2:
            return ()
        from_seeds, from_micrographs = self._variances
        alone = (float(np.sqrt(from_seeds)), n - 1.0)
        return (alone, (float(np.sqrt(from_seeds + from_micrographs)), self.df))

    def p_above(self, value: float = 0.0) -> float | None:
        """One-sided p for *the true mean is above value*.

        None with a single seed, and with two that agree to the last digit.
        """
        if not self._errors or (len(self.by_seed) < 3 and self._errors[0][0] == 0):
            return None
        distance = self.mean - value
        p_values = [
            float(stats.t.sf(distance / error, df)) if error > 0 else float(distance <= 0)
            for error, df in self._errors
        ]
        return max(p_values)

    def p_below(self, value: float = 0.0) -> float | None:
        """One-sided p for *the true mean is below value*; None with a single seed."""
        flipped = None if self.over_micrographs is None else -self.over_micrographs
        return Difference(self.seeds, -self.by_seed, flipped, self.micrograph_df).p_above(-value)

    def p_two_sided(self) -> float | None:
        """Two-sided p for *the true mean is not 0*; None with a single seed."""
        above, below = self.p_above(), self.p_below()
        return None if above is None or below is None else min(1.0, 2 * min(above, below))

    def interval(self) -> Interval | None:
        """Mean ± t × standard error, over seeds and micrographs; None with a single seed."""
        return self._interval(self._errors)

    def interval_over_seeds(self) -> Interval | None:
        """The interval of the paired t-test, for the held-out micrographs as they are."""
        return self._interval(self._errors[:1])

    def interval_over_micrographs(self) -> Interval | None:
        """For other held-out micrographs of the same groups, with the seeds as they are."""
        if self.over_micrographs is None or self.micrograph_df < 1:
            return None
        error = float(self.over_micrographs.mean(axis=0).std(ddof=1))
        return self._interval([(error, self.micrograph_df)])

    def _interval(self, errors: Sequence[tuple[float, float]]) -> Interval | None:
        if not errors:
            return None
        reach = max(float(stats.t.ppf((1 + LEVEL) / 2, df)) * error for error, df in errors)
        return Interval(self.mean - reach, self.mean + reach)


def rao_wu_weights(
    strata: Sequence[str], n_replicates: int = N_REPLICATES, seed: int = 0
) -> NDArray[np.float64]:
    """Bootstrap weights (n_replicates, n) of units that belong to ``strata`` (n,).

    From each stratum of m units m − 1 are drawn with replacement and weighted by m/(m − 1), which
    makes the variance of a mean right also where m is small (Rao & Wu 1988, doi:10.2307/2288945).
    The only unit of a stratum keeps weight 1: nothing is known of its spread.
    """
    rng = np.random.default_rng(seed)
    names = np.asarray(strata)
    weights = np.ones((n_replicates, len(names)))
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        m = len(rows)
        if m > 1:
            counts = rng.multinomial(m - 1, np.full(m, 1 / m), size=n_replicates)
            weights[:, rows] = counts * (m / (m - 1))
    return weights


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given, that hold for the whole family (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def wilcoxon(differences: ArrayLike) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test, zeros left out; None where nothing is left."""
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]
    return float(stats.wilcoxon(d).pvalue) if len(d) else None


def smallest_wilcoxon_p(n: int) -> float:
    """The smallest two-sided p that Wilcoxon's signed-rank test can give with ``n`` pairs."""
    return float(min(1.0, 2.0 ** (1 - n)))


def detectable_difference(std: float, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The true difference that a two-sided paired t-test finds with probability ``power``.

    Args:
        std: standard deviation of the paired differences.
        n: number of pairs, at least 2.
        alpha: level of the test.
        power: how often the difference is to be found.

    Raises:
        ValueError: fewer than two pairs.
    """
    if n < 2:
        raise ValueError(f"n={n}: a paired test needs at least 2 pairs")
    df = n - 1
    # The noncentral t distribution, written out: SciPy's gives NaN far in its tails.
    spread = np.sqrt(stats.chi2.ppf((np.arange(4096) + 0.5) / 4096, df) / df)
    critical = stats.t.ppf(1 - alpha / 2, df) * spread

    def missing(shift: float) -> float:
        return float(np.mean(stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift))) - power

    return std * float(optimize.brentq(missing, 0.0, 2 * critical.max())) / float(np.sqrt(n))
