"""What the strategies asked for: how similar, from which groups, how crowded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.errors import DataError
from cryoquery.report.runs import LearningCurve, Results


@dataclass(frozen=True)
class Overlap:
    """How much of one query two runs have in common."""

    iteration: int
    """The query that led to this iteration, from 1 on."""
    labeled_fraction: float
    runs: tuple[str, ...]
    share: NDArray[np.float64]
    """(runs, runs) share of the query that both asked for, mean over seeds; NaN where not known."""
    by_chance: float
    """What the same queries of two independent runs of random sampling would share."""


def find_dataset(results: Results) -> tuple[Dataset | None, str]:
    """The dataset of an experiment where it still lies there unchanged, or the reason why not."""
    try:
        dataset = open_dataset(results.config.dataset)
    except DataError as error:
        return None, str(error)
    recorded = results.environment.get("dataset_fingerprint")
    if dataset.fingerprint != recorded:
        return None, f"{dataset.path}: is not the dataset of the experiment any more"
    return dataset, ""


def overlaps(results: Results) -> list[Overlap]:
    """The overlap of every query between all strategies, paired by seed."""
    curves = [c for c in results.curves if c.run.endswith("_sampling") and c.labeled is not None]
    runs = tuple(dict.fromkeys(curve.run for curve in curves))
    by_key = {(curve.run, curve.seed): curve for curve in curves}
    n_iterations = min((len(curve.iterations) for curve in curves), default=0)
    n_train = results.environment["n_train_images"]
    found = []
    for i in range(1, n_iterations):
        before, after = (curves[0].iterations[j]["n_labeled_images"] for j in (i - 1, i))
        queries = {key: set(curve.queried(i).tolist()) for key, curve in by_key.items()}
        share = np.full((len(runs), len(runs)), np.nan)
        for (a, run_a), (b, run_b) in product(enumerate(runs), repeat=2):
            shared = [
                len(queries[run_a, seed] & queries[run_b, seed]) / (after - before)
                for seed in results.seeds(run_a, run_b)
                if (run_a, seed) in queries and (run_b, seed) in queries
            ]
            if shared:
                share[a, b] = np.mean(shared)
        # Seen from the other run, a random query is any of the images that neither began with.
        by_chance = (after - before) / (n_train - curves[0].iterations[0]["n_labeled_images"])
        found.append(Overlap(i, after / n_train, runs, share, by_chance))
    return found


@dataclass(frozen=True)
class Selection:
    """What a run had labeled, mean over its seeds."""

    run: str
    fractions: NDArray[np.float64]
    """(n,) labeled share of the pool."""
    shares: Mapping[str, NDArray[np.float64]]
    """For each group its share of the labeled images, (n,)."""
    foreground: NDArray[np.float64]
    """(n,) mean foreground of the images that were new in each iteration, in [0, 1]."""
    particles: NDArray[np.float64]
    """(n,) particles per image that was new in each iteration."""


@dataclass(frozen=True)
class PoolFacts:
    """The pool that the strategies chose from."""

    groups: tuple[str, ...]
    """(n,) of each image."""
    foreground: NDArray[np.float64]
    """(n,) share of an image's pixels that are particles."""
    particles: NDArray[np.int64]
    """(n,) of each image."""

    @classmethod
    def of(cls, dataset: Dataset) -> PoolFacts:
        """Read them off the labels of all training images."""
        rows = dataset.rows("train")
        return cls(
            groups=tuple(dataset.records[row].group for row in rows),
            foreground=dataset.n_foreground(rows) / dataset.n_valid(rows),
            particles=np.array([dataset.n_particles([row]) for row in rows]),
        )

    def share(self, group: str, indices: Sequence[int] | NDArray[np.int64] | None = None) -> float:
        """Share of ``group`` among the images ``indices``, or in the whole pool."""
        chosen = range(len(self.groups)) if indices is None else indices
        return float(np.mean([self.groups[i] == group for i in chosen]))


def selections(results: Results, pool: PoolFacts) -> list[Selection]:
    """What each strategy had labeled, over its iterations."""
    found = []
    for run in results.runs():
        curves = [curve for curve in results.of(run) if curve.labeled is not None]
        if not run.endswith("_sampling") or not curves:
            continue
        per_seed = [_of_curve(curve, pool) for curve in curves]
        groups = sorted(set(pool.groups))
        found.append(
            Selection(
                run,
                curves[0].fractions,
                {group: np.mean([shares[group] for shares, _, _ in per_seed], axis=0) for group in groups},
                np.mean([foreground for _, foreground, _ in per_seed], axis=0),
                np.mean([particles for _, _, particles in per_seed], axis=0),
            )
        )
    return found


def _of_curve(
    curve: LearningCurve, pool: PoolFacts
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64], NDArray[np.float64]]:
    assert curve.labeled is not None, "the caller left such curves out"
    groups = sorted(set(pool.groups))
    counts = [Counter(pool.groups[i] for i in labeled.tolist()) for labeled in curve.labeled]
    shares = {g: np.array([count[g] / count.total() for count in counts]) for g in groups}
    new = [curve.labeled[0], *(curve.queried(i) for i in range(1, len(curve.labeled)))]
    foreground = np.array([pool.foreground[indices].mean() for indices in new])
    particles = np.array([pool.particles[indices].mean() for indices in new])
    return shares, foreground, particles


def selection_record(
    overlap: Sequence[Overlap], selected: Sequence[Selection], pool: PoolFacts | None
) -> dict[str, Any]:
    """What `selection.json` holds."""
    record: dict[str, Any] = {
        "overlap_of_queries": [
            {
                "iteration": o.iteration,
                "labeled_fraction": o.labeled_fraction,
                "by_chance": o.by_chance,
                "share": {
                    a: {b: None if np.isnan(v) else float(v) for b, v in zip(o.runs, row, strict=True)}
                    for a, row in zip(o.runs, o.share, strict=True)
                },
            }
            for o in overlap
        ]
    }
    if pool is not None:
        record["pool"] = {
            "share_of_groups": {group: pool.share(group) for group in sorted(set(pool.groups))},
            "mean_foreground": float(pool.foreground.mean()),
            "mean_particles_per_image": float(pool.particles.mean()),
        }
        record["labeled"] = {
            s.run: {
                "labeled_fraction": s.fractions.tolist(),
                "share_of_groups": {group: values.tolist() for group, values in s.shares.items()},
                "mean_foreground_of_new_images": s.foreground.tolist(),
                "mean_particles_of_new_images": s.particles.tolist(),
            }
            for s in selected
        }
    return record
