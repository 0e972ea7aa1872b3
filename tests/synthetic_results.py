"""Learning curves that were made up, with the effect that a test wants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.experiment.config import ExperimentConfig
from cryoquery.report.runs import COUNTS, LearningCurve, Results

FRACTIONS = np.linspace(0.1, 1.0, 10)
N_TRAIN = 100
N_MICROGRAPHS = 12


def curve(
    run: str,
    seed: int,
    f1: NDArray[np.float64],
    fractions: NDArray[np.float64] = FRACTIONS,
    spread: NDArray[np.float64] | None = None,
) -> LearningCurve:
    """A learning curve with counts on micrographs that are off by ``spread`` (n_micrographs,)."""
    counts = {}
    if spread is not None:
        n = np.full(len(f1), 1_000_000)
        for m, off in enumerate(spread):
            tp = np.rint((f1 + off) * n).astype(np.int64)
            values = dict.fromkeys(COUNTS, n) | {"pixel_tp": tp, "pixel_fp": n - tp, "pixel_fn": n - tp}
            counts["AB"[m % 2], f"m{m:02d}"] = np.stack([values[name] for name in COUNTS], axis=1)
        f1 = np.mean([c[:, 0] / 1_000_000 for c in counts.values()], axis=0)
    iterations = tuple(
        {
            "f1": score,
            "labeled_fraction": fraction,
            "n_labeled_images": round(fraction * N_TRAIN),
            "n_labeled_particles": 7 * round(fraction * N_TRAIN),
        }
        for score, fraction in zip(f1.tolist(), fractions.tolist(), strict=True)
    )
    return LearningCurve(
        run, seed, Path(run) / f"seed_{seed}", iterations, None, dict(sorted(counts.items()))
    )


def results(curves: list[LearningCurve]) -> Results:
    """Results of an experiment that never was."""
    names = list(dict.fromkeys(c.run for c in curves))
    config = ExperimentConfig(
        dataset=Path("nowhere"),
        strategies=tuple(n.removesuffix("_sampling") for n in names if n.endswith("_sampling")),
        baselines=tuple(n for n in names if not n.endswith("_sampling")),
        seeds=tuple(sorted({c.seed for c in curves})),
    )
    return Results(config, {"n_train_images": N_TRAIN, "splits": ["val"]}, tuple(curves), ())


def experiment(
    means: Mapping[str, NDArray[np.float64]],
    rng: np.random.Generator,
    n_seeds: int = 5,
    noise: float = 0.01,
    micrograph_noise: float = 0.0,
    full: float = 0.8,
) -> Results:
    """Curves scattered around ``means``; those of a seed share a part of their noise, as real ones do."""
    shared = rng.normal(0, noise, n_seeds)
    curves = []
    for run, mean in means.items():
        spread = rng.normal(0, micrograph_noise, N_MICROGRAPHS) if micrograph_noise else None
        for seed in range(n_seeds):
            own = rng.normal(0, noise) + rng.normal(0, noise / 2, len(mean))
            curves.append(curve(run, seed, mean + shared[seed] + own, spread=spread))
    for seed in range(n_seeds):
        f1 = np.array([full + shared[seed] + rng.normal(0, noise / 2)])
        spread = rng.normal(0, micrograph_noise, N_MICROGRAPHS) if micrograph_noise else None
        curves.append(curve("full_supervision", seed, f1, np.array([1.0]), spread))
    return results(curves)
