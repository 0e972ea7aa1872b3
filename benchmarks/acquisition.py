"""Strategies on the standing pools, as Markdown: what finished experiments show, and the ceiling above them.

    python benchmarks/pools.py data/pools
    cryoquery experiment configs/benchmark_real.toml                        # and the other pools
    python benchmarks/acquisition.py experiments/benchmark_* --out table.md
    python benchmarks/acquisition.py experiments/benchmark_real --oracle 8 --seeds 1 2 3
    python benchmarks/acquisition.py experiments/benchmark_real --time

F1 is that of pixels on the reported split. Areas under the curve are trapezoids divided by their range: over
the labeled share, as in the report, and over its logarithm, in which a geometric schedule has even steps.
Differences are paired by seed, with the interval of the paired t-test over the seeds; the one *with
micrographs* also has the variance over held-out micrographs (docs/comparison.md).

``--oracle`` computes the ceiling of `oracle_bound.py`, which later tables have as *Greedy Oracle*; ``--time``
times a query of each strategy.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from labels_needed import MOST, Curves, pooled_f1, times_fewer
from numpy.typing import ArrayLike, NDArray
from oracle_bound import oracle_bound, read_bounds
from query_time import query_seconds

from cryoquery.data.dataset import Dataset
from cryoquery.experiment.config import FULL_SUPERVISION
from cryoquery.picking.intervals import Interval
from cryoquery.report.efficiency import Measured, Measurements, Number, aulc
from cryoquery.report.runs import (
    RANDOM,
    STRATIFIED,
    LearningCurve,
    Results,
    read_results,
    short_label,
)
from cryoquery.report.selection import PoolFacts, find_dataset, overlaps, selections
from cryoquery.report.statistics import Difference
from cryoquery.storage.atomic import write_text

TARGETS = (0.95, 0.98)
"""Shares of full supervision's F1 that labels are counted to."""


def aulc_by_doubling(fractions: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the curve over the logarithm of the labeled share: every doubling counts the same."""
    return aulc(np.log2(np.asarray(fractions, dtype=np.float64)), scores)


AREAS: Mapping[str, Number] = {"share": aulc, "doublings": aulc_by_doubling}


@dataclass(frozen=True)
class Pool:
    """A finished experiment on one pool."""

    name: str
    results: Results

    @cached_property
    def measurements(self) -> Measurements:
        """Pixel F1 pooled over the split."""
        return Measurements(self.results)

    @property
    def runs(self) -> list[str]:
        """Strategies, baselines and the oracle; no baselines."""
        return [run for run in self.results.runs() if run.endswith("_sampling")]

    def pooled(self, run: str, number: Number) -> Measured:
        """A number of the curve of F1 pooled over the split."""
        return self.measurements.of(run, number)

    def over_groups(self, run: str, number: Number) -> Measured:
        """The same of the mean over groups of F1, in which every group counts the same."""
        values = {c.seed: number(c.fractions, mean_over_groups(c)) for c in self.results.of(run)}
        return Measured({seed: value for seed, value in values.items() if value is not None}, {}, 0)

    def full(self, score: Callable[[LearningCurve], NDArray[np.float64]]) -> float | None:
        """F1 of full supervision, mean over its seeds."""
        values = [score(curve)[-1] for curve in self.results.of(FULL_SUPERVISION)]
        return float(np.mean(values)) if values else None


def mean_over_groups(curve: LearningCurve) -> NDArray[np.float64]:
    """(n,) mean over groups of F1 of each iteration."""
    return np.array([np.mean([s["f1"] for s in m["per_group"].values()]) for m in curve.iterations])


def read_pool(folder: Path) -> Pool:
    """A pool's experiment with what the oracle left there.

    Raises:
        ExperimentError: there is no experiment, or nothing in it is finished.
    """
    results = read_results(folder)
    curves = (*results.curves, *read_bounds(folder))
    return Pool(folder.resolve().name.removeprefix("benchmark_"), replace(results, curves=curves))


# Tables


def markdown(pool: Pool) -> str:
    """Everything about one pool."""
    dataset, missing = find_dataset(pool.results)
    parts = [heading(pool), areas(pool), gains(pool), labels_needed(pool), by_iteration(pool)]
    parts.append(asked_for(pool, dataset) if dataset else f"No selections: {missing}.")
    same = [" = ".join(map(short_label, group)) for group in pool.results.identical]
    if same:
        parts.append(f"The same images throughout: {'; '.join(same)}.")
    if pool.results.unfinished:
        parts.append(f"Not finished: {'; '.join(pool.results.unfinished)}.")
    return "\n\n".join(parts) + "\n"


def overview(pools: Sequence[Pool]) -> str:
    """Gains in area of all strategies on all pools, over the labeled share, against each baseline."""
    runs = list(dict.fromkeys(run for pool in pools for run in pool.runs))
    parts = []
    for baseline in (STRATIFIED, RANDOM):
        others = [run for run in runs if run != baseline]
        rows = []
        for pool in pools:
            theirs = pool.pooled(baseline, aulc) if baseline in pool.runs else None
            known = {run: pool.pooled(run, aulc).minus(theirs) for run in pool.runs if theirs}
            rows.append([pool.name, *(difference(known.get(run)) for run in others)])
        header = [
            f"gain in area over the share, against {short_label(baseline)}",
            *map(short_label, others),
        ]
        parts.append(table(header, rows))
    parts.append(best_of_stratified([pool for pool in pools if STRATIFIED in pool.runs]))
    return "\n\n".join(parts) + "\n"


def best_of_stratified(pools: Sequence[Pool]) -> str:
    """How many times fewer particles each strategy needs for the best F1 of stratified random sampling."""
    runs = list(dict.fromkeys(run for pool in pools for run in pool.runs if run != STRATIFIED))
    rows = []
    for pool in pools:
        curves = Curves.of(pool.results, STRATIFIED, pool.results.seeds(STRATIFIED))
        best = curves.best()
        row = [pool.name, number(best), whole(curves.needed(best).particles)]
        for run in runs:
            ratio = times_fewer(pool.results, run, STRATIFIED, None) if run in pool.runs else None
            row.append(fewer(ratio))
        rows.append(row)
    header = ["Stratified Random at best", "F1", "particles", *(f"{short_label(run)}" for run in runs)]
    return f"{table(header, rows)}\n\nTimes fewer particles for that F1."


def heading(pool: Pool) -> str:
    """Name and frame of an experiment."""
    results = pool.results
    full = pool.full(pooled_f1), pool.full(mean_over_groups)
    counts = sorted({int(m["n_labeled_images"]) for c in results.of(pool.runs[0]) for m in c.iterations})
    lines = [
        f"## {pool.name}",
        "",
        f"{results.environment['n_train_images']} images to choose from, {', '.join(map(str, counts))} "
        f"labeled; {len(pool.measurements.micrographs)} micrographs in {results.split}. Full supervision: "
        f"F1 {number(full[0])} pooled, {number(full[1])} mean over groups.",
    ]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def mean_std(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}" if values else "–"


def between(interval: Interval | None, form: str = "+.3f") -> str:
    """An interval in brackets."""
    if interval is None:
        return ""
    return f" [{interval.low:{form}}, {interval.high:{form}}]".replace("-", "−")


def fewer(ratio: tuple[float, Interval | None] | None) -> str:
    """How many times fewer, with its interval."""
    return "–" if ratio is None else f"{ratio[0]:.2f}{between(ratio[1], '.2f')}"


def areas(pool: Pool) -> str:
    """Areas under the curves."""
    header = ["area under the curve", "seeds"]
    header += [f"{score}, over {axis}" for axis in AREAS for score in ("pooled F1", "mean over groups")]
    rows = []
    for run in pool.runs:
        found = [of(run, area) for area in AREAS.values() for of in (pool.pooled, pool.over_groups)]
        cells = [mean_std(list(measured.by_seed.values())) for measured in found]
        rows.append([short_label(run), str(len(pool.results.of(run))), *cells])
    return table(header, rows)


def gains(pool: Pool) -> str:
    """Differences of the areas to the baselines, paired by seed."""
    header = ["gain in area", "against", *(f"pooled F1, over {axis}" for axis in AREAS), "with micrographs"]
    header += [f"mean over groups, over {axis}" for axis in AREAS]
    rows = []
    for baseline in (RANDOM, STRATIFIED):
        for run in pool.runs:
            if run == baseline or baseline not in pool.runs:
                continue
            own = [pool.pooled(run, n).minus(pool.pooled(baseline, n)) for n in AREAS.values()]
            groups = [pool.over_groups(run, n).minus(pool.over_groups(baseline, n)) for n in AREAS.values()]
            last = own[-1]
            both = between(last.interval()).strip() if last else "–"
            cells = [*map(difference, own), both, *map(difference, groups)]
            rows.append([short_label(run), short_label(baseline), *cells])
    return table(header, rows)


def difference(found: Difference | None) -> str:
    """Mean and interval of the paired t-test; bold where 0 is outside."""
    if found is None:
        return "–"
    interval = found.interval_over_seeds()
    text = f"{found.mean:+.3f}".replace("-", "−") + between(interval)
    return f"**{text}**" if interval and (interval.low > 0 or interval.high < 0) else text


def labels_needed(pool: Pool) -> str:
    """Labels for a share of full supervision, and how many times fewer than stratified random sampling."""
    full = pool.full(pooled_f1)
    if full is None:
        return "Labels needed: full supervision was not run."
    header = ["labels needed"]
    for share in TARGETS:
        reach = f"{share:.0%} ({share * full:.3f})"
        header += [f"{reach}: images", "particles", "times fewer than stratified", "than random"]
    rows = []
    for run in pool.runs:
        cells = [short_label(run)]
        for share in TARGETS:
            found = Curves.of(pool.results, run, pool.results.seeds(run)).needed(share * full)
            cells += [whole(found.images), whole(found.particles)]
            for baseline in (STRATIFIED, RANDOM):
                known = baseline in pool.runs and baseline != run
                cells.append(fewer(times_fewer(pool.results, run, baseline, share * full) if known else None))
        rows.append(cells)
    note = (
        "Of the mean curve over seeds, interpolated; a ratio of "
        f"{math.exp(MOST):.0f} or 1/{math.exp(MOST):.0f} stands for one of the two that does not arrive."
    )
    return f"{table(header, rows)}\n\n{note}"


def whole(value: float) -> str:
    """A number of labels."""
    return "not reached" if math.isinf(value) else f"{value:,.0f}"


def by_iteration(pool: Pool) -> str:
    """Pooled F1 / mean over groups in each iteration."""
    counts = [int(n) for n in pool.results.of(pool.runs[0])[0].values("n_labeled_images")]
    rows = []
    for run in pool.runs:
        curves = pool.results.of(run)
        f1, groups = (np.mean([of(c) for c in curves], axis=0) for of in (pooled_f1, mean_over_groups))
        cells = [f"{a:.3f} / {b:.3f}" for a, b in zip(f1, groups, strict=True)]
        rows.append([short_label(run), *cells])
    return table(["F1 pooled / mean over groups", *map(str, counts)], rows)


def asked_for(pool: Pool, dataset: Dataset) -> str:
    """What was labeled: how much of it random sampling would have asked for, which groups, how crowded."""
    facts = PoolFacts.of(dataset)
    share = {run: [] for run in pool.runs}  # type: dict[str, list[float]]
    chance = []
    for overlap in overlaps(pool.results):
        chance.append(overlap.by_chance)
        if RANDOM in overlap.runs:
            at = overlap.runs.index(RANDOM)
            for run, values in zip(overlap.runs, overlap.share, strict=True):
                share[run].append(float(values[at]))
    groups = sorted(set(facts.groups))
    header = ["labeled at the end", "overlap of queries with random", *groups, "particles per image"]
    rows = [["the pool", f"{np.mean(chance):.3f} by chance" if chance else "–"]]
    rows[0] += [f"{facts.share(group):.0%}" for group in groups] + [f"{facts.particles.mean():.1f}"]
    for found in selections(pool.results, facts):
        cells = [f"{found.shares[group][-1]:.0%}" for group in groups]
        last = [c.iterations[-1] for c in pool.results.of(found.run)]
        per_image = np.mean([m["n_labeled_particles"] / m["n_labeled_images"] for m in last])
        same = number(float(np.mean(share[found.run]))) if share[found.run] else "–"
        rows.append([short_label(found.run), same, *cells, f"{per_image:.1f}"])
    return table(header, rows)


def query_times(folder: Path) -> str:
    """Seconds of a query of each strategy."""
    n, n_pool, rows = query_seconds(folder)
    return (
        f"## {folder.name}\n\n{table([f'seconds for a query of {n} of {n_pool}', 'first', 'again'], rows)}\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, or compute what they need."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="+", type=Path, help="folders of experiments, one per pool")
    parser.add_argument("--out", type=Path, help="write the tables there (default: print them)")
    parser.add_argument(
        "--oracle", type=int, metavar="K", help="compute the ceiling from K batches per iteration"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1, 2, 3], help="of the ceiling (default: 1 2 3)"
    )
    parser.add_argument("--time", action="store_true", help="time a query of each strategy instead")
    args = parser.parse_args(argv)
    if args.oracle:
        for folder in args.experiments:
            oracle_bound(folder, args.oracle, args.seeds)
        return
    if args.time:
        parts = [query_times(folder) for folder in args.experiments]
    else:
        pools = [read_pool(folder) for folder in args.experiments]
        parts = [markdown(pool) for pool in pools]
        if len(pools) > 1:
            parts.insert(0, overview(pools))
    text = "\n".join(parts)
    if args.out:
        write_text(args.out, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
