"""Is it worth going on? What the next labels are expected to bring, and whether to stop.

Two things are known of a project while its truth is not: how F1 on the held-out micrographs rose so far,
and how much the predictions of each model differ from those of the one before.

The learning curve is taken to be a power law, f(n) = a − d (n / n₁)^−c, as measured ones are (Cortes et al.
1993; Figueroa et al. 2012, doi:10.1186/1472-6947-12-8; Hestness et al. 2017, arXiv:1712.00409). A handful of
points does not determine its parameters, so none are fitted: all curves of a grid are averaged, weighted by
how well they explain the points. Models whose predictions agree cannot differ much in F1, which rules out
steep curves (stabilizing predictions: Bloodgood & Vijay-Shanker 2009, arXiv:1409.5165).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from cryoquery.active.progress import duration

ENOUGH = 0.01
"""A gain of F1 below this is not worth a person's time."""
HORIZON = 2
"""Further iterations over which it is counted."""
STABLE = 0.88
"""Models that agree less have not settled: a curve that is flat so far may not have begun to rise."""
MIN_POINTS = 2
"""From a single point nothing can be said."""
TYPICAL_STD = 0.03
"""Of F1 over micrographs whose number does not allow to estimate it, and of one training over another."""

DROPS = np.concatenate([[0.0], np.geomspace(0.001, 1.0, 61)])
"""What the first model is short of the asymptote, in F1."""
EXPONENTS = np.geomspace(0.2, 4.0, 16)
TRAINING_STDS = np.geomspace(0.003, 0.05, 6)
"""How much F1 varies from one training to the next for reasons other than labels."""
DROP_SCALE = 0.02
"""Drops below it are all equally probable beforehand, greater ones fall off as 1/drop."""
TYPICAL_EXPONENT, EXPONENT_SPREAD = 0.7, 0.5
"""Of the log-normal prior; in natural logarithms."""


@dataclass(frozen=True)
class Point:
    """One model on the learning curve."""

    n_labeled: float
    """Items that it was trained on."""
    f1: float
    """In [0, 1], mean over the held-out micrographs."""
    std: float
    """Standard error of differences to other points from the choice of micrographs, over √2."""


@dataclass(frozen=True)
class Gain:
    """What more labels are expected to bring, in F1."""

    mean: float
    """By the next query."""
    std: float
    all_mean: float
    """By `HORIZON` queries more."""
    p_enough: float
    """Probability that these bring less than `ENOUGH`."""
    is_stable: bool = True
    """Whether the last two models agree by `STABLE` or more; also where that was not measured."""

    @property
    def is_enough(self) -> bool:
        """Whether it is time to stop."""
        return self.is_stable and self.all_mean < ENOUGH


def points(n_labeled: Sequence[float], scores: ArrayLike) -> list[Point]:
    """The learning curve on micrographs that all models were measured on.

    Some micrographs are easier than others for all models, which is no noise: the mean of each micrograph is
    subtracted. What is left estimates how far the mean of a model would differ with other micrographs.

    Args:
        n_labeled: (k,) items that each model was trained on.
        scores: (k, m) F1 in [0, 1] of each model on each micrograph.
    """
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    k, m = values.shape
    if k < 2 or m < 2:
        spread = TYPICAL_STD / max(m, 1) ** 0.5
    else:
        rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        found = float((rest**2).sum() / ((k - 1) * (m - 1)))
        # Few values estimate a variance badly: the typical one counts as much as four of them.
        n = (k - 1) * (m - 1)
        spread = float(np.sqrt((n * found + 4 * TYPICAL_STD**2) / (n + 4) / m))
    return [Point(n, float(row.mean()), spread) for n, row in zip(n_labeled, values, strict=True)]


def expected_gain(
    curve: Sequence[Point], n_more: float, agreement: Sequence[float | None] = ()
) -> Gain | None:
    """What ``n_more`` labeled items are expected to bring; None for fewer than `MIN_POINTS` points.

    Args:
        curve: one point per model, in the order they were made.
        n_more: training items of the next query.
        agreement: (k − 1,) F1 in [0, 1] between the predictions of each model and of the one before;
            None where it was not measured.
    """
    if len(curve) < MIN_POINTS:
        return None
    n = np.array([max(point.n_labeled, 1.0) for point in curve])
    weight = _posterior(curve, n, agreement)
    next_n = n[-1] + n_more * np.arange(1, HORIZON + 1)
    rise = _shortfall(np.concatenate([[n[-1]], next_n]), n[0])  # (drops, exponents, points ahead)
    ahead = rise[..., :1] - rise[..., 1:]
    flat, gains = weight.ravel(), ahead.reshape(-1, HORIZON)
    mean = float(flat @ gains[:, 0])
    std = max(float(flat @ gains[:, 0] ** 2) - mean**2, 0.0) ** 0.5
    last = gains[:, -1]
    latest = agreement[len(curve) - 2] if len(agreement) >= len(curve) - 1 else None
    is_stable = latest is None or latest >= STABLE
    return Gain(mean, std, float(flat @ last), float(flat[last < ENOUGH].sum()), is_stable)


def should_stop(curve: Sequence[Point], n_more: float, agreement: Sequence[float | None] = ()) -> bool:
    """Whether the next `HORIZON` queries are expected to bring less than `ENOUGH`, and the models agree."""
    gain = expected_gain(curve, n_more, agreement)
    return gain is not None and gain.is_enough


def largest_change(agreement: float) -> float:
    """The most that F1 can change between two predictions whose F1 with each other is ``agreement``.

    Of p picks in each, (1 − agreement) p were replaced; where all of the old ones were wrong and all of the
    new ones right, and as many particles are there as picks, F1 rises by that share.
    """
    return 1 - agreement


def _posterior(
    curve: Sequence[Point], n: NDArray[np.float64], agreement: Sequence[float | None]
) -> NDArray[np.float64]:
    """Probability (drops, exponents) of each curve."""
    f1, std = np.array([point.f1 for point in curve]), np.array([point.std for point in curve])
    missing = _shortfall(n, n[0])
    total: NDArray[np.float64] = np.zeros(missing.shape[:2])
    for training_std in TRAINING_STDS:
        variance = std**2 + training_std**2
        precision = 1 / variance
        level = f1 + missing  # (drops, exponents, k) each point's guess of the asymptote
        asymptote = (level * precision).sum(axis=-1) / precision.sum()
        spread = precision.sum() ** -0.5
        misfit = ((level - asymptote[..., None]) ** 2 * precision).sum(axis=-1)
        scale = spread * float(np.prod(variance)) ** -0.5
        # The asymptote is integrated over [0, 1]; the prior of the noise is even in its logarithm.
        total += scale * np.exp(-misfit / 2) * norm.cdf((1 - asymptote) / spread)
    total *= _prior()
    for i, found in enumerate(agreement[: len(curve) - 1]):
        if found is not None:
            total *= missing[..., i] - missing[..., i + 1] <= largest_change(found)
    if not total.sum() > 0:  # nothing on the grid explains the points
        total = _prior()
    return np.asarray(total / total.sum())


def _shortfall(n: NDArray[np.float64], first: float) -> NDArray[np.float64]:
    """What each curve of the grid is short of its asymptote at ``n`` (k,) items: (drops, exponents, k)."""
    return np.asarray(DROPS[:, None, None] * (n / first)[None, None, :] ** -EXPONENTS[None, :, None])


def _prior() -> NDArray[np.float64]:
    width = np.gradient(DROPS)
    of_drop = width / np.maximum(DROPS, DROP_SCALE)
    of_exponent = norm.pdf(np.log(EXPONENTS / TYPICAL_EXPONENT) / EXPONENT_SPREAD)
    return np.asarray(of_drop[:, None] * of_exponent[None, :])


def sentence(gain: Gain, n_items: int, minutes: float, unit: str = "micrograph") -> str:
    """A sentence for people about the next query.

    Args:
        gain: what it is expected to bring.
        n_items: items of the query.
        minutes: to label it.
        unit: what an item is.
    """
    what = f"{n_items} more {unit}{'' if n_items == 1 else 's'} (about {duration(60 * minutes)})"
    verb = "is" if n_items == 1 else "are"
    said = f"{what} {verb} expected to raise F1 by {100 * gain.mean:.1f} ± {100 * gain.std:.1f} points"
    return f"{said}; it may be time to stop" if gain.is_enough else said
