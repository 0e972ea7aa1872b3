"""Does the stopping rule end where the curve does? Replays finished experiments.

    python benchmarks/stopping.py EXPERIMENT … [--score particle_f1] [--simulated 200]

Of each run the rule sees what a person would: scores of each model on a slice of the held-out micrographs
that grows as a quarter of what is labeled, and how much predictions changed (``examples.npz`` of consecutive
iterations). The truth is the other split. Where an experiment has one split only, half of its micrographs,
drawn at random, play the one part and the others the other.

The true plateau is the first iteration whose F1 is within 0.01 of the last one's. A run counts as right where
the rule ends within one iteration of it. A run in which the rule never ends is taken to end with its last.

Where F1 varies by as much as 0.01 from one training to the next, the plateau of a single run is decided by
chance. So the rule is also judged against the expected curve: the mean over the seeds of a strategy, or the
power law that a simulated run was drawn from. How often the plateaus of the two are within one iteration of
each other is what a rule that knows the expected curve would reach on single runs.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from cryoquery.active.stopping import ENOUGH, points, should_stop
from cryoquery.storage.atomic import read_json

SHARE = 0.25
"""Of the labeled micrographs that are held out."""
MIN_HELD_OUT = 2
BASELINES = ("full_supervision",)


@dataclass(frozen=True)
class Replay:
    """One finished run."""

    name: str
    n_labeled: list[int]
    seen: NDArray[np.float64]
    """(k, m) F1 of each iteration on the micrographs that a person could label to hold out."""
    truth: NDArray[np.float64]
    """(k,) F1 on the others."""
    agreement: list[float | None]
    """(k − 1,)"""
    expected: NDArray[np.float64]
    """(k,) the truth without the chance of a single training, as far as that is known."""


def runs(folder: Path, score: str) -> Iterator[Replay]:
    """All runs of several iterations in an experiment's folder."""
    iterations: dict[Path, list[Path]] = {}
    for file in folder.rglob("iteration_*/metrics.json"):
        iterations.setdefault(file.parents[1], []).append(file.parent)
    for run, folders in sorted(iterations.items()):
        folders.sort(key=lambda path: int(path.name.rpartition("_")[2]))
        metrics = [read_json(path / "metrics.json") for path in folders]
        if len(metrics) < 3 or any(name in str(run) for name in BASELINES):
            continue
        name = f"{folder.name}/{run.relative_to(folder)}"
        seen, truth = slices(metrics, score, name)
        agreement = [changed(a, b) for a, b in pairwise(folders)]
        yield Replay(name, [m["n_labeled_images"] for m in metrics], seen, truth, agreement, truth)


def over_seeds(found: Sequence[Replay]) -> list[Replay]:
    """The same runs, with the mean over the seeds of a strategy for the expected curve."""
    by_strategy: dict[str, list[NDArray[np.float64]]] = {}
    for run in found:
        by_strategy.setdefault(run.name.partition("/seed_")[0], []).append(run.truth)
    means = {name: np.mean(curves, axis=0) for name, curves in by_strategy.items()}
    return [replace(run, expected=means[run.name.partition("/seed_")[0]]) for run in found]


def slices(
    metrics: Sequence[dict[str, Any]], score: str, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a person sees (k, m), and the truth (k,)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    reported = metrics[0]["split"]
    other = "val" if reported == "test" else "test"
    if all(isinstance(m.get(other), dict) for m in metrics):
        by_split = {reported: list(metrics), other: [m[other] for m in metrics]}
        seen = by_micrograph(by_split["val"], score)
        return seen[:, rng.permutation(seen.shape[1])], by_micrograph(by_split["test"], score).mean(axis=1)
    everything = by_micrograph(metrics, score)
    order = rng.permutation(everything.shape[1])
    half = len(order) // 2
    return everything[:, order[:half]], everything[:, order[half:]].mean(axis=1)


def by_micrograph(metrics: Sequence[dict[str, Any]], score: str) -> NDArray[np.float64]:
    """(k, m) F1 of each iteration on each micrograph that holds particles."""
    table = [{(r["group"], r["micrograph"]): r for r in m["per_micrograph"]} for m in metrics]
    keys = [key for key, record in table[0].items() if record["n_particles"]]
    return np.array([[f1(records[key], score) for key in keys] for records in table])


def f1(record: dict[str, Any], score: str) -> float:
    """Of one micrograph."""
    if score == "particle_f1":
        return 2 * record["n_matched"] / max(record["n_picks"] + record["n_particles"], 1)
    tp = record["pixel_tp"]
    return 2 * tp / max(2 * tp + record["pixel_fp"] + record["pixel_fn"], 1)


def changed(before: Path, after: Path) -> float | None:
    """F1 between the thresholded examples of two consecutive iterations."""
    maps = []
    for folder in (before, after):
        if not (folder / "examples.npz").is_file():
            return None
        with np.load(folder / "examples.npz") as file:
            maps.append(file["probability"] >= 128)
    total = sum(int(values.sum()) for values in maps)
    return 2 * int((maps[0] & maps[1]).sum()) / total if total else None


def simulated(n: int, rng: np.random.Generator, training_std: float | None = None) -> Iterator[Replay]:
    """Runs whose true curve is a power law, with the spread that real ones have."""
    for i in range(n):
        n_labeled = [int(6 * 1.7**k) if i % 2 else 8 + 8 * k for k in range(8)]
        asymptote, drop = rng.uniform(0.6, 0.95), rng.uniform(0.02, 0.5)
        exponent = float(np.exp(rng.normal(0.2, 0.5)))
        law = asymptote - drop * (np.array(n_labeled) / n_labeled[0]) ** -exponent
        curve = law + rng.normal(0, training_std or rng.choice([0.003, 0.01, 0.02]), len(law))
        micrographs = rng.normal(0, 0.08, 40)
        seen = curve[:, None] + micrographs + rng.normal(0, 0.03, (len(curve), 40))
        yield Replay(f"simulated/{i}", n_labeled, np.clip(seen, 0, 1), curve, [None] * (len(curve) - 1), law)


def plateau(truth: NDArray[np.float64]) -> int:
    """The first iteration that is as good as the last."""
    return int(np.flatnonzero(truth >= truth[-1] - ENOUGH)[0])


def stops_at(run: Replay) -> int:
    """The iteration at which the rule ends."""
    last = len(run.n_labeled) - 1
    for k in range(last):
        labeled, m = run.n_labeled[: k + 1], run.seen.shape[1]
        n_held_out = min(m, max(MIN_HELD_OUT, round(labeled[-1] * SHARE / (1 - SHARE))))
        curve = points(labeled, run.seen[: k + 1, :n_held_out])
        if should_stop(curve, run.n_labeled[k + 1] - labeled[-1], run.agreement[:k]):
            return k
    return last


def share(right: Sequence[bool]) -> str:
    """The share with its Clopper-Pearson interval."""
    n, k = len(right), sum(right)
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k}/{n} = {k / n:.0%} ({low:.0%} to {high:.0%})"


def main() -> None:
    """Print each run, and the share of those in which the rule was right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="*", type=Path)
    parser.add_argument("--score", choices=("particle_f1", "f1"), default="particle_f1")
    parser.add_argument("--simulated", type=int, default=0, help="so many simulated runs as well")
    parser.add_argument("--training-std", type=float, help="of F1 from one simulated training to the next")
    parser.add_argument("--quiet", action="store_true", help="only the shares")
    given = parser.parse_args()
    found = over_seeds([run for folder in given.experiments for run in runs(folder, given.score)])
    found += simulated(given.simulated, np.random.default_rng(0), given.training_std)
    right, lost, late, expected, ceiling = [], [], [], [], []
    for run in found:
        end, true = stops_at(run), plateau(run.truth)
        right.append(abs(end - true) <= 1)
        lost.append(float(run.truth[-1] - run.truth[end]))
        late.append(end - true)
        expected.append(abs(end - plateau(run.expected)) <= 1)
        ceiling.append(abs(plateau(run.expected) - true) <= 1)
        if not given.quiet:
            values = " ".join(f"{value:.3f}" for value in run.truth)
            print(f"{run.name}: ends {end}, plateau {true}{'' if right[-1] else ' (!)'}; true F1 {values}")
    if found:
        print(f"ends within one iteration of the plateau: {share(right)}")
        print(f"of that of the expected curve: {share(expected)}")
        print(f"the two plateaus are within one iteration of each other: {share(ceiling)}")
        print(f"too early: {sum(x < -1 for x in late)}, too late: {sum(x > 1 for x in late)}")
        print(f"F1 given up: mean {np.mean(lost):+.4f}, at most 0.01 in {share([x <= ENOUGH for x in lost])}")


if __name__ == "__main__":
    main()
