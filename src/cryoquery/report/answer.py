"""What a reader is told first: three numbers, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from cryoquery.report.efficiency import HALF, TOLERATED_LOSS, Measurements, aulc
from cryoquery.report.runs import RANDOM, Results, label
from cryoquery.report.statistics import ALPHA, detectable_difference
from cryoquery.report.words import listed, plural

WORTH_FINDING = 0.02
"""A difference in AULC that people would change their ways for."""
MOST_SEEDS = 20
"""More than anybody trains."""
SMALL_NUMERALS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def three_numbers(measurements: Measurements, runs: Mapping[str, Any]) -> list[dict[str, str]]:
    """Full supervision, half of the labels, and how many labels are enough, the latter beside random.

    Args:
        measurements: of the experiment.
        runs: its `efficiency_of_runs`.

    Returns:
        ``number`` and what it is, ``text``, of each; a number that nobody measured is left out.
    """
    results = measurements.results
    said = []
    full = [metrics["f1"] for metrics in results.full_supervision().values()]
    if full:
        n_images = results.full_supervision()[min(results.full_supervision())]["n_labeled_images"]
        what = f"F1 of full supervision, all {plural(n_images, 'image')} labeled"
        said.append({"number": f"{sum(full) / len(full):.3f}", "text": what})
    sampled = {name: run for name, run in runs.items() if name.endswith("_sampling")}
    half = {
        name: run["over_seeds"]["f1_at_50"]["mean"]
        for name, run in sampled.items()
        if run["over_seeds"]["f1_at_50"]
    }
    if half:
        best, value = _ahead(_strategies(half), max)
        chance = half.get(RANDOM)
        among = "the best" if chance is None or chance <= value else "the best of the strategies"
        beside = "" if chance is None else f"; {label(RANDOM)} {chance:.3f}"
        text = f"F1 at {100 * HALF:.0f} % of the labels by {best}, {among}{beside}"
        said.append({"number": f"{value:.3f}", "text": text})
    if full and sampled:
        reached = {name: _images_needed(run) for name, run in sampled.items()}
        known = {name: n for name, n in _strategies(reached).items() if n is not None}
        goal = f"to come within {TOLERATED_LOSS} of full supervision"
        if known:
            first, n = _ahead(known, min, digits=0)
            chance = reached.get(RANDOM)
            among = "the first" if chance is None or chance >= n else "the first of the strategies"
            needed = f"{chance:.0f}" if chance else "did not"
            beside = f"; {label(RANDOM)} {needed}" if RANDOM in reached else ""
            said.append({"number": f"{n:.0f}", "text": f"images {goal} by {first}, {among}{beside}"})
        else:
            said.append({"number": "none", "text": f"of the strategies labeled enough {goal}"})
    return said


def _strategies(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of strategies, which random sampling is held against; its own where there are no others."""
    return {name: value for name, value in values.items() if name != RANDOM} or values


def _ahead(values: Mapping[str, float], best: Callable[[Any], float], digits: int = 3) -> tuple[str, float]:
    """Everyone whose rounded value is the best one, and that value."""
    top = round(best(values.values()), digits)
    return listed([label(name) for name, value in values.items() if round(value, digits) == top]), top


def _images_needed(run: Mapping[str, Any]) -> float | None:
    """Mean over seeds; None unless all of them came near full supervision."""
    found = [numbers["to_reach_full_supervision"] for numbers in run["by_seed"].values()]
    if not found or not all(found):
        return None
    return float(sum(numbers["n_labeled_images"] for numbers in found)) / len(found)


def what_next(measurements: Measurements) -> str:
    """How many seeds would tell, in a sentence, by the largest spread of a difference to random."""
    results = measurements.results
    if not results.judged() or RANDOM not in results.runs():
        return "Run a strategy and random sampling with the same seeds: without both nothing can be compared."
    runs = [run for run in results.judged() if run not in results.first_of_identical]
    differences = [measurements.of(run, aulc).minus(measurements.of(RANDOM, aulc)) for run in runs]
    n_seeds = max((len(d.seeds) for d in differences if d), default=0)
    if n_seeds < 2:
        return "Run three seeds or more: with one, an effect cannot be told from chance."
    spreads = [d.standard_error * math.sqrt(len(d.seeds)) for d in differences if d and d.standard_error]
    if not spreads:
        return ""

    def found(n: int) -> float:
        return detectable_difference(max(spreads), n, ALPHA / len(runs))

    if found(n_seeds) <= WORTH_FINDING:
        return (
            f"{_seeds(n_seeds).capitalize()} were enough: a difference of {WORTH_FINDING} to random sampling "
            "in the area under the curve would have been found with 80 % probability."
        )
    enough = next((n for n in range(n_seeds + 1, MOST_SEEDS + 1) if found(n) <= WORTH_FINDING), None)
    if enough is None:
        return (
            f"More seeds alone would not tell: with {MOST_SEEDS} a difference of {found(MOST_SEEDS):.3f} in "
            "the area under the curve would be found. Hold out more micrographs."
        )
    return (
        f"Run {_seeds(enough)}: a difference of {WORTH_FINDING} to random sampling in the area under the "
        f"curve would then be found with 80 % probability; with {_seeds(n_seeds)} one of "
        f"{found(n_seeds):.3f} is."
    )


def _seeds(n: int) -> str:
    return plural(n, "seed", SMALL_NUMERALS)


def size_and_date(results: Results, n_held_out: int) -> str:
    """How much data, which seeds, and when it was run, in a line."""
    seeds, n_train = results.seeds_of_any(), results.environment["n_train_images"]
    parts = [
        f"{results.config.dataset.name}: {plural(n_train, 'image')} to label from",
        f"measured on {plural(n_held_out, 'micrograph')} ({results.split})" if n_held_out else results.split,
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
    ]
    if started := results.environment.get("started"):
        parts.append(str(started)[:10])
    return " · ".join(parts)
