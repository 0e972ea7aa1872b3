"""How far a score over few micrographs may be from the truth: the one place for intervals of F1.

Scores of micrographs are bounded, mostly close to 1 and skewed, and there are few of them. The percentiles of
a bootstrap allow for none of this: at three micrographs they hold the truth 76 % of the time instead of 95 %.
Here the error is that of the jackknife (Tukey 1958), on the scale of the logit, which keeps it in [0, 1]
and makes it longer on the side of the tail, times a quantile of Student's t. Its degrees of freedom follow
from the kurtosis of the errors. ``benchmarks/interval_coverage.py`` compares this to other methods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
FEWEST = 3
"""Of fewer micrographs no interval is given."""
LEAST_DF = 1.7
"""Of so few values a kurtosis can be anything: with fewer degrees of freedom intervals only get longer."""
TINY = 1e-9
"""Scores that differ by less are equal."""
UNEQUAL = 1.5
"""Excess kurtosis of the errors from unequal weights, per squared coefficient of variation of their squares.

3 follows from normal errors, but two moments describe the variance of three micrographs badly: intervals
would be too wide. Half of it covers as it should."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def interval_of_mean(scores: ArrayLike) -> Interval | None:
    """95 % interval within [0, 1] of the mean of ``scores`` (m,) in [0, 1], a random sample.

    None: there are too few to say, fewer than three, or all of them equal.
    """
    values = np.asarray(scores, dtype=np.float64)
    return interval_of_ratio(values, np.ones_like(values))


def interval_of_ratio(above: ArrayLike, below: ArrayLike) -> Interval | None:
    """95 % interval within [0, 1] of a pooled score, the sum of ``above`` over that of ``below``.

    Args:
        above: (m,) of each micrograph of a random sample, at least 0 and at most what is below; of a pooled
            F1 twice the true positives.
        below: (m,) of each; of a pooled F1 that and all errors. Micrographs with 0 do not count.

    Returns:
        None: there are too few to say, fewer than three, or all of them with the same score.
    """
    a, b = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    a, b = a[b > 0], b[b > 0]
    if len(b) < FEWEST:
        return None
    low, high = limits(a, b)
    return None if np.isnan(low) else Interval(float(low), float(high))


def interval_of_difference(one: ArrayLike, other: ArrayLike) -> Interval | None:
    """95 % interval within [−1, 1] of the mean of ``one`` (m,) less that of ``other`` (k,), two samples.

    None: one of them has fewer than three scores, or equal ones only.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if min(len(a), len(b)) < FEWEST:
        return None
    low, high = limits_of_difference(a, b)
    return None if np.isnan(low) else Interval(float(low), float(high))


def limits_of_difference(
    one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper limits (...) of the mean of ``one`` (..., m) less that of ``other`` (..., k).

    By Welch's t (1947): skewness cancels out in differences, so that no other scale is needed. NaN where
    nothing varies in one of the samples.
    """
    variances, per_df = [], []
    for sample in (one, other):
        errors = sample - sample.mean(axis=-1, keepdims=True)
        variance = (errors**2).mean(axis=-1) / (sample.shape[-1] - 1)
        variance = np.where(variance > TINY**2, variance, np.nan)
        variances.append(variance)
        per_df.append(variance**2 / degrees_of_freedom(errors, np.ones_like(errors)))
    total = variances[0] + variances[1]
    reach = stats.t.ppf((1 + LEVEL) / 2, total**2 / (per_df[0] + per_df[1])) * np.sqrt(total)
    difference = one.mean(axis=-1) - other.mean(axis=-1)
    return np.clip(difference - reach, -1, 1), np.clip(difference + reach, -1, 1)


def limits(
    above: NDArray[np.float64], below: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper limits (...) of the ratio of the sums of ``above`` and ``below`` (..., m).

    NaN where all parts have the same ratio: nothing tells then how much others would differ.
    """
    m = above.shape[-1]
    ratio = above.sum(axis=-1) / below.sum(axis=-1)
    without = (above.sum(axis=-1, keepdims=True) - above) / (below.sum(axis=-1, keepdims=True) - below)
    errors = without - without.mean(axis=-1, keepdims=True)
    error = np.sqrt((m - 1) / m * (errors**2).sum(axis=-1))
    varies = (error > TINY) & (ratio > 0) & (ratio < 1)
    inside = np.where(varies, ratio, 0.5)
    odds = np.log(inside / (1 - inside))
    reach = stats.t.ppf((1 + LEVEL) / 2, degrees_of_freedom(errors, below)) * error / (inside * (1 - inside))
    low, high = (1 / (1 + np.exp(-np.clip(odds + sign * reach, -700, 700))) for sign in (-1, 1))
    return np.where(varies, low, np.nan), np.where(varies, high, np.nan)


def degrees_of_freedom(errors: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the variance of ``errors`` (..., m) of parts with ``weights`` (..., m): (...), at most m − 1.

    A sample variance of m values varies by 2/(m − 1) + κ/m of its square, with their excess kurtosis κ. Where
    one micrograph stands out of few, κ is large, and little is known of the variance. κ is that of the sample
    (Fisher's unbiased one, for four values or more) or what the weights alone make it, whichever is greater.
    """
    m = errors.shape[-1]
    squares = weights**2
    unequal = (squares**2).mean(axis=-1) / squares.mean(axis=-1) ** 2 - 1
    kurtosis = np.maximum(UNEQUAL * unequal, 0)
    if m > 3:
        second = (errors**2).mean(axis=-1)
        excess = (errors**4).mean(axis=-1) / np.where(second > TINY**2, second, 1) ** 2 - 3
        kurtosis = np.maximum(kurtosis, ((m + 1) * excess + 6) * (m - 1) / ((m - 2) * (m - 3)))
    return np.asarray(np.maximum(2 / (2 / (m - 1) + kurtosis / m), LEAST_DF))
