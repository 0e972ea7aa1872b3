"""How much a strategy gets out of its labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid

from cryoquery.report.runs import LearningCurve, Results, mean_and_std

HALF = 0.5
ROUNDING = 0.01
TOLERATED_LOSS = 0.01
"""A strategy has reached full supervision when its F1 is at most this much below."""


def aulc(fractions: ArrayLike, scores: ArrayLike, up_to: float = 1.0) -> float | None:
    """Area under the learning curve: the mean score over the labelled fractions it covers.

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
    """The score at a labelled fraction, interpolated between iterations.

    None where the iterations end more than `ROUNDING` away from it: counts are whole images.
    """
    x = np.asarray(fractions, dtype=np.float64)
    if not x[0] - ROUNDING <= at <= x[-1] + ROUNDING:
        return None
    return float(np.interp(at, x, np.asarray(scores, dtype=np.float64)))


def first_to_reach(curve: LearningCurve, target: float) -> dict[str, Any] | None:
    """Images and particles labelled in the first iteration whose F1 is at least ``target``."""
    for metrics in curve.iterations:
        if metrics["f1"] >= target:
            return {
                "labeled_fraction": metrics["labeled_fraction"],
                "n_labeled_images": metrics["n_labeled_images"],
                "n_labeled_particles": metrics["n_labeled_particles"],
            }
    return None


def efficiency_analysis(results: Results) -> dict[str, Any]:
    """What `efficiency_analysis.json` holds: for each run its numbers by seed, and over the seeds.

    ``to_reach_full_supervision`` is paired by seed: the target is full supervision of the same seed.
    """
    full = results.full_supervision()
    runs = {}
    for name in results.runs():
        by_seed = {str(curve.seed): _of_one(curve, full) for curve in results.of(name)}
        over_seeds = {}
        for key in ("aulc", "aulc_up_to_50", "f1_at_50", "final_f1"):
            values = [numbers[key] for numbers in by_seed.values() if numbers[key] is not None]
            over_seeds[key] = mean_and_std(values) if values else None
        runs[name] = {"over_seeds": over_seeds, "by_seed": by_seed}
    return {
        "split": results.environment["splits"][0],
        "tolerated_loss": TOLERATED_LOSS,
        "full_supervision_f1": {str(seed): metrics["f1"] for seed, metrics in full.items()},
        "runs": runs,
        "unfinished": list(results.unfinished),
    }


def _of_one(curve: LearningCurve, full: Any) -> dict[str, Any]:
    fractions, f1 = curve.fractions, curve.values("f1")
    target = full[curve.seed]["f1"] - TOLERATED_LOSS if curve.seed in full else None
    return {
        "aulc": aulc(fractions, f1),
        "aulc_up_to_50": aulc(fractions, f1, HALF) if fractions[0] < HALF else None,
        "f1_at_50": score_at(fractions, f1, HALF),
        "final_f1": float(f1[-1]),
        "to_reach_full_supervision": first_to_reach(curve, target) if target is not None else None,
    }
