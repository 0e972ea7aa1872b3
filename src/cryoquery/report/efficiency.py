"""How much a strategy gets out of its labels: numbers of one learning curve, and pairs of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid

from cryoquery.experiment.config import FULL_SUPERVISION
from cryoquery.report.runs import COUNTS, RANDOM, LearningCurve, Results, mean_and_std
from cryoquery.report.statistics import Difference, rao_wu_weights

HALF = 0.5
ROUNDING = 0.01
TOLERATED_LOSS = 0.01
"""A strategy has reached full supervision when its F1 is at most this much below."""
COUNTED_ROUNDING = 1e-6
"""Counts per micrograph must give the F1 of the whole split to this, or they belong to another result."""
ALONE = "alone in their group"
"""One stratum of all micrographs without another of their group: collapsed strata, which is careful."""
DECIMALS = 12
"""Differences are rounded to so many, or equal curves would differ by rounding, and always the same way."""

Number = Callable[[ArrayLike, ArrayLike], "float | None"]
"""From labeled fractions (n,) and scores (n,) to one number, linear in the scores; None: undefined."""


def aulc(fractions: ArrayLike, scores: ArrayLike, up_to: float = 1.0) -> float | None:
    """Area under the learning curve: the mean score over the labeled fractions it covers.

    The trapezoid of ``scores`` over ``fractions`` (both (n,), fractions increasing) from the first
    fraction to ``up_to`` or the last, whichever comes first, divided by that range. The score at
    ``up_to`` is interpolated. None where the range is empty.
    """
    x, y = np.asarray(fractions, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    end = min(up_to, float(x[-1]))
    inside = x < end
    x, y = np.append(x[inside], end), np.append(y[inside], np.interp(end, x, y))
    if len(x) < 2 or x[-1] <= x[0]:
        return None
    return float(trapezoid(y, x) / (x[-1] - x[0]))


def score_at(fractions: ArrayLike, scores: ArrayLike, at: float) -> float | None:
    """The score at a labeled fraction, interpolated between iterations.

    None where the iterations end more than `ROUNDING` away from it: counts are whole images.
    """
    x = np.asarray(fractions, dtype=np.float64)
    if not x[0] - ROUNDING <= at <= x[-1] + ROUNDING:
        return None
    return float(np.interp(at, x, np.asarray(scores, dtype=np.float64)))


def final(fractions: ArrayLike, scores: ArrayLike) -> float | None:  # noqa: ARG001 (it is a Number)
    """The score of the last iteration."""
    return float(np.asarray(scores)[-1])


NUMBERS: dict[str, Number] = {
    "aulc": aulc,
    "aulc_up_to_50": partial(aulc, up_to=HALF),
    "f1_at_50": partial(score_at, at=HALF),
    "final_f1": final,
}


@dataclass(frozen=True)
class Measured:
    """One number of one run: its value for each seed, and on resampled held-out micrographs."""

    by_seed: dict[int, float]
    resampled: dict[int, NDArray[np.float64]]
    """(b,) for each seed; without an entry where micrographs were not counted."""
    micrograph_df: int

    def minus(self, other: Measured) -> Difference | None:
        """Differences paired by seed; None where no seed has both."""
        seeds = sorted(self.by_seed.keys() & other.by_seed.keys())
        if not seeds:
            return None
        resampled = None
        if all(seed in self.resampled and seed in other.resampled for seed in seeds):
            resampled = np.array([self.resampled[seed] - other.resampled[seed] for seed in seeds])
            resampled = np.round(resampled, DECIMALS)
        by_seed = np.array([self.by_seed[seed] - other.by_seed[seed] for seed in seeds])
        return Difference(tuple(seeds), np.round(by_seed, DECIMALS), resampled, self.micrograph_df)


class Measurements:
    """Pixel F1 of all curves, and of the same curves on resampled held-out micrographs.

    A resample draws micrographs within their groups (`rao_wu_weights`), the same ones for every run
    and iteration, so that differences between runs stay paired.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        micrographs = {tuple(curve.counts) for curve in results.curves}
        self.micrographs = micrographs.pop() if len(micrographs) == 1 else ()
        """Held-out micrographs that every run was measured on; empty where that is not known."""

    @cached_property
    def _strata(self) -> list[str]:
        """The group of each held-out micrograph; those that are alone in theirs are taken together."""
        size = Counter(group for group, _ in self.micrographs)
        return [group if size[group] > 1 else ALONE for group, _ in self.micrographs]

    @property
    def micrograph_df(self) -> int:
        """Held-out micrographs less their strata; 0 where nothing is known of their variance."""
        return len(self._strata) - len(set(self._strata)) if self._resampled else 0

    @cached_property
    def _resampled(self) -> dict[tuple[str, int], NDArray[np.float64]]:
        """F1 (iterations, b) of each run and seed; empty unless all of them have counts that add up."""
        found = {}
        weights = rao_wu_weights(self._strata)
        for curve in self.results.curves if self.micrographs else ():
            counts = np.stack(list(curve.counts.values()), axis=1).astype(np.float64)
            tp, fp, fn = (counts[:, :, COUNTS.index(name)] for name in ("pixel_tp", "pixel_fp", "pixel_fn"))
            whole = 2 * tp.sum(axis=1) / np.maximum((2 * tp + fp + fn).sum(axis=1), 1)
            if not np.allclose(whole, curve.values("f1"), rtol=0, atol=COUNTED_ROUNDING):
                return {}
            above, below = tp @ weights.T, (tp + (fp + fn) / 2) @ weights.T
            found[(curve.run, curve.seed)] = above / np.maximum(below, 1)
        return found

    def of(self, run: str, number: Number) -> Measured:
        """A number of a run, for the seeds for which it is defined."""
        by_seed, resampled = {}, {}
        for curve in self.results.of(run):
            value = number(curve.fractions, curve.values("f1"))
            if value is None:
                continue
            by_seed[curve.seed] = value
            if (curve.run, curve.seed) in self._resampled:
                basis = np.eye(len(curve.iterations))
                weights = np.array([number(curve.fractions, one) for one in basis])
                resampled[curve.seed] = weights @ self._resampled[(curve.run, curve.seed)]
        return Measured(by_seed, resampled, self.micrograph_df)

    def at(self, run: str, iteration: int) -> Measured:
        """F1 of a run in one iteration."""
        return self.of(run, lambda _, scores: float(np.asarray(scores)[iteration]))


def first_to_reach(curve: LearningCurve, target: float) -> dict[str, Any] | None:
    """Images and particles labeled in the first iteration whose F1 is at least ``target``."""
    for metrics in curve.iterations:
        if metrics["f1"] >= target:
            return {
                "labeled_fraction": metrics["labeled_fraction"],
                "n_labeled_images": metrics["n_labeled_images"],
                "n_labeled_particles": metrics["n_labeled_particles"],
            }
    return None


def headroom(measurements: Measurements, run: str) -> dict[int, float | None]:
    """(AULC − that of random) / (F1 of full supervision − AULC of random), for each seed that has all.

    0 is random sampling, 1 would be full supervision from the first label on. None where random
    sampling leaves no headroom.
    """
    area, chance = measurements.of(run, aulc).by_seed, measurements.of(RANDOM, aulc).by_seed
    full = measurements.of(FULL_SUPERVISION, final).by_seed
    return {
        seed: (area[seed] - chance[seed]) / (full[seed] - chance[seed]) if full[seed] > chance[seed] else None
        for seed in sorted(area.keys() & chance.keys() & full.keys())
    }


def efficiency_of_runs(measurements: Measurements) -> dict[str, Any]:
    """For each run its numbers by seed, and over the seeds.

    ``to_reach_full_supervision`` is paired by seed: the target is full supervision of the same seed.
    """
    results = measurements.results
    runs = {}
    for name in results.runs():
        share = headroom(measurements, name)
        by_seed = {
            str(curve.seed): _of_one(curve, results) | {"headroom_aulc": share.get(curve.seed)}
            for curve in results.of(name)
        }
        over_seeds = {}
        for key in (*NUMBERS, "headroom_aulc"):
            values = [numbers[key] for numbers in by_seed.values() if numbers[key] is not None]
            over_seeds[key] = mean_and_std(values) if values else None
        runs[name] = {"over_seeds": over_seeds, "by_seed": by_seed}
    return runs


def _of_one(curve: LearningCurve, results: Results) -> dict[str, Any]:
    full, f1 = results.full_supervision(), curve.values("f1")
    target = full[curve.seed]["f1"] - TOLERATED_LOSS if curve.seed in full else None
    reached = first_to_reach(curve, target) if target is not None else None
    if reached is not None:
        cost = results.label_cost.minutes(reached["n_labeled_images"], reached["n_labeled_particles"])
        reached["minutes"] = cost
    numbers: dict[str, Any] = {key: number(curve.fractions, f1) for key, number in NUMBERS.items()}
    return numbers | {"to_reach_full_supervision": reached}
