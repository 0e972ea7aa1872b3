"""Labels at which a learning curve first reaches a score, and how many times fewer one needs than another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cryoquery.picking.intervals import LEVEL, Interval
from cryoquery.report.runs import LearningCurve, Results
from cryoquery.report.statistics import rao_wu_weights

FEWEST = 5
"""Of fewer seeds no interval of a ratio is given."""
MOST = math.log(16)
"""Ratios of labels are cut off here: where a curve of a resample never arrives they would be infinite."""


def pooled_f1(curve: LearningCurve) -> NDArray[np.float64]:
    """(n,) F1 of each iteration, pooled."""
    return curve.values("f1")


@dataclass(frozen=True)
class Needed:
    """Labels at which a curve first reaches a score, interpolated; infinite where it does not."""

    images: float
    particles: float


def needed(
    images: NDArray[np.float64], particles: NDArray[np.float64], f1: NDArray[np.float64], target: float
) -> Needed:
    """Where the curve (n,) first reaches ``target``: over the logarithm of images, particles alike."""
    above = np.flatnonzero(f1 >= target)
    if len(above) == 0:
        return Needed(math.inf, math.inf)
    i = int(above[0])
    if i == 0:
        return Needed(float(images[0]), float(particles[0]))
    part = (target - f1[i - 1]) / (f1[i] - f1[i - 1])

    def between(values: NDArray[np.float64]) -> float:
        low, high = np.log(np.maximum(values[i - 1 : i + 1], 1))
        return float(np.exp(low + part * (high - low)))

    return Needed(between(images), between(particles))


@dataclass(frozen=True)
class Curves:
    """The curves of one run over some seeds, to be averaged with weights."""

    images: NDArray[np.float64]
    """(n,)"""
    particles: NDArray[np.float64]
    """(seeds, n)"""
    f1: NDArray[np.float64]
    """(seeds, n)"""

    @classmethod
    def of(cls, results: Results, run: str, seeds: Sequence[int]) -> Curves:
        """Those of ``seeds``, in their order."""
        by_seed = {curve.seed: curve for curve in results.of(run)}
        chosen = [by_seed[seed] for seed in seeds]
        return cls(
            chosen[0].values("n_labeled_images"),
            np.array([curve.values("n_labeled_particles") for curve in chosen]),
            np.array([pooled_f1(curve) for curve in chosen]),
        )

    def needed(self, target: float, weights: NDArray[np.float64] | None = None) -> Needed:
        """Labels that the mean curve needs."""
        particles, f1 = (np.average(a, axis=0, weights=weights) for a in (self.particles, self.f1))
        return needed(self.images, particles, f1, target)

    def best(self, weights: NDArray[np.float64] | None = None) -> float:
        """The highest F1 of the mean curve."""
        return float(np.average(self.f1, axis=0, weights=weights).max())


def times_fewer(
    results: Results, run: str, baseline: str, target: float | None
) -> tuple[float, Interval | None] | None:
    """How many times fewer labeled particles the mean curve of ``run`` needs than that of ``baseline``.

    For the F1 ``target``, or where that is None for the best that the baseline reaches. With a bootstrap
    interval over the seeds, which are resampled together; None where neither arrives.
    """
    seeds = results.seeds(run, baseline)
    if not seeds:
        return None
    own, other = Curves.of(results, run, seeds), Curves.of(results, baseline, seeds)
    if target is not None and all(math.isinf(c.needed(target).particles) for c in (own, other)):
        return None
    estimate = log_ratio(own, other, target)
    interval = None
    if len(seeds) >= FEWEST:
        weights = rao_wu_weights(["seeds"] * len(seeds))
        replicates = np.array([log_ratio(own, other, target, row) for row in weights])
        found = bootstrap_interval(estimate, replicates, len(seeds) - 1)
        interval = Interval(*np.exp(np.clip([found.low, found.high], -MOST, MOST)).tolist())
    return math.exp(estimate), interval


def bootstrap_interval(estimate: float, replicates: NDArray[np.float64], df: float) -> Interval:
    """Percentile interval, its distances from ``estimate`` stretched from a normal to a t quantile.

    Percentiles alone are too narrow for a handful of seeds (Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789); those of a ratio may be infinite, so that no variance is taken.
    """
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    stretch = stats.t.ppf(tails[1], df) / stats.norm.ppf(tails[1])
    low, high = estimate + stretch * (np.quantile(replicates, tails) - estimate)
    return Interval(float(low), float(high))


def log_ratio(
    own: Curves, other: Curves, target: float | None, weights: NDArray[np.float64] | None = None
) -> float:
    """Logarithm of the other's particles over one's own, within ± `MOST`; 0 where neither arrives."""
    target = other.best(weights) if target is None else target
    mine, theirs = (curves.needed(target, weights).particles for curves in (own, other))
    if math.isinf(mine) and math.isinf(theirs):
        return 0.0
    if math.isinf(mine) or math.isinf(theirs):
        return -MOST if math.isinf(mine) else MOST
    return float(np.clip(math.log(theirs / mine), -MOST, MOST))
