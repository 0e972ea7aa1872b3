"""All numbers of a comparison in one record, `efficiency_analysis.json`: the page and the figures read it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cryoquery.picking.intervals import Interval
from cryoquery.report.answer import three_numbers, what_next
from cryoquery.report.computing import computing
from cryoquery.report.efficiency import (
    HALF,
    NUMBERS,
    ROUNDING,
    TOLERATED_LOSS,
    Measurements,
    aulc,
    efficiency_of_runs,
)
from cryoquery.report.hypotheses import Hypothesis, Judgment, differing_iterations, judge
from cryoquery.report.runs import OPPONENTS, RANDOM, Results, label
from cryoquery.report.statistics import (
    ALPHA,
    POWER,
    Difference,
    detectable_difference,
    holm,
    smallest_wilcoxon_p,
    wilcoxon,
)

TESTED = {"aulc": "AULC", "aulc_up_to_50": "AULC up to 50 %", "f1_at_50": "F1 at 50 %"}


def analyze(measurements: Measurements) -> dict[str, Any]:
    """What `efficiency_analysis.json` holds."""
    results = measurements.results
    runs = efficiency_of_runs(measurements)
    return {
        "answer": three_numbers(measurements, runs),
        "next": what_next(measurements),
        "split": results.split,
        "tolerated_loss": TOLERATED_LOSS,
        "full_supervision_f1": {str(s): m["f1"] for s, m in results.full_supervision().items()},
        "hypotheses": {h.key: _hypothesis(h) for h in judge(measurements)},
        "runs": runs,
        "against": {run: against(measurements, run) for run in OPPONENTS if run in results.runs()},
        "wins": win_matrix(results),
        "limits": limits(measurements),
        "label_cost": results.label_cost.model_dump() | {"measured": False},
        "identical": results.identical,
        "computing": computing(results),
        "unfinished": list(results.unfinished),
    }


def _hypothesis(hypothesis: Hypothesis) -> dict[str, Any]:
    said = {name: getattr(hypothesis, name) for name in ("title", "claim", "verdict", "sentence", "note")}
    return said | {"strategies": {j.run: _judgment(j) for j in hypothesis.judgments}}


def _judgment(judgment: Judgment) -> dict[str, Any]:
    difference = judgment.difference
    return {
        "label": label(judgment.run),
        "verdict": judgment.verdict,
        "p_for": judgment.p_for,
        "p_against": judgment.p_against,
        "same_as": judgment.same_as,
        "difference": _difference(difference) if difference else None,
        **judgment.numbers,
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "mean": difference.mean,
        "std": difference.std,
        "by_seed": dict(zip(map(str, difference.seeds), difference.by_seed.tolist(), strict=True)),
        "interval": _bounds(difference.interval()),
        "interval_over_seeds": _bounds(difference.interval_over_seeds()),
        "interval_over_micrographs": _bounds(difference.interval_over_micrographs()),
        "p": difference.p_two_sided(),
        "p_wilcoxon": wilcoxon(difference.by_seed) if len(difference.seeds) > 1 else None,
    }


def _bounds(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def against(measurements: Measurements, baseline: str) -> dict[str, Any]:
    """Every strategy minus ``baseline``, paired by seed, p values adjusted by Holm within each number."""
    results = measurements.results
    first = results.first_of_identical
    runs = [run for run in results.runs() if run.endswith("_sampling") and run != baseline]
    compared: dict[str, Any] = {}
    beyond_half = any(curve.fractions[-1] > HALF + ROUNDING for curve in results.of(baseline))
    for name in TESTED:
        if name == "aulc_up_to_50" and not beyond_half:  # the whole curve, under another name
            compared[name] = {}
            continue
        reference = measurements.of(baseline, NUMBERS[name])
        differences = {run: measurements.of(run, NUMBERS[name]).minus(reference) for run in runs}
        rows = {run: _difference(d) for run, d in differences.items() if d is not None}
        for p in ("p", "p_wilcoxon"):
            tested = [run for run in rows if rows[run][p] is not None and run not in first]
            adjusted = dict(zip(tested, holm([rows[run][p] for run in tested]), strict=True))
            for run in rows:
                rows[run][f"{p}_holm"] = adjusted.get(first.get(run, run))
        compared[name] = rows
    return compared


def win_matrix(results: Results) -> dict[str, Any]:
    """How often the F1 of one run is above that of another, at the same seed and labeled share.

    Over the iterations in which runs can differ, and over the seeds that both have; a tie counts
    half. ``share[a][b]`` and ``share[b][a]`` add up to 1; None where no seed has both.
    """
    runs = [run for run in results.runs() if run.endswith("_sampling")]
    iterations = list(differing_iterations(results))
    f1 = {(c.run, c.seed): np.round(c.values("f1"), 12) for c in results.curves}
    share: dict[str, dict[str, float | None]] = {}
    for a in runs:
        share[a] = {}
        for b in runs:
            pairs = [f1[(a, s)][iterations] - f1[(b, s)][iterations] for s in results.seeds(a, b)]
            wins = [np.mean((d > 0) + 0.5 * (d == 0)) for d in pairs] if iterations else []
            share[a][b] = float(np.mean(wins)) if wins and a != b else None
    return {"runs": runs, "share": share}


def limits(measurements: Measurements) -> dict[str, Any]:
    """The differences that are too small for this experiment to show, whatever its outcome.

    ``detectable_aulc_difference`` is for the full standard error of each strategy's difference to
    random sampling and for the first step of Holm's correction.
    """
    results = measurements.results
    runs = [run for run in results.judged() if results.of(RANDOM) and run not in results.first_of_identical]
    pairs = {run: len(results.seeds(run, RANDOM)) for run in runs}
    tested = [n for n in pairs.values() if n >= 2]
    chance = measurements.of(RANDOM, aulc)
    detectable = {}
    for run in runs:
        difference = measurements.of(run, aulc).minus(chance)
        if difference is not None and difference.standard_error:
            n = len(difference.seeds)
            spread = difference.standard_error * math.sqrt(n)
            detectable[run] = detectable_difference(spread, n, ALPHA / len(runs))
    everyone = set(results.seeds_of_any())
    missing = {run: sorted(everyone - set(results.seeds(run))) for run in results.runs()}
    return {
        "n_paired_seeds": pairs,
        "smallest_wilcoxon_p": smallest_wilcoxon_p(max(tested)) if tested else None,
        "seeds_for_wilcoxon": math.ceil(1 - math.log2(ALPHA)),
        "alpha": ALPHA,
        "power": POWER,
        "detectable_aulc_difference": detectable,
        "n_held_out_micrographs": len(measurements.micrographs) or None,
        "n_groups": len({group for group, _ in measurements.micrographs}) or None,
        "micrographs_vary": measurements.micrograph_df > 0,
        "missing_seeds": {run: seeds for run, seeds in missing.items() if seeds},
    }
