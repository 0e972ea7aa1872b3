"""What bfloat16 costs in F1: the same small experiment in bfloat16 and in float32, beside the noise of seeds.

    python benchmarks/precision.py [--micrographs 60] [--base-channels 8] [--seeds 3] [--strategy uncertainty]

The micrographs are simulated, as those of `cryoquery demo`. The F1 of a seed is that of the last
iteration; beside it stands the mean over iterations, which hears of every step of the curve.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryoquery import run_experiment
from cryoquery.active.iteration import read_iteration
from cryoquery.cli.demo import SIMULATION
from cryoquery.config import parse
from cryoquery.experiment.config import ExperimentConfig, plan_runs
from cryoquery.simulate import simulate_dataset

PRECISIONS = ("bf16-mixed", "32-true")


def curves(args: argparse.Namespace, folder: Path, precision: str, n_train: int) -> np.ndarray:
    """F1 on the held-out micrographs, (seeds, iterations)."""
    training = {"initial_epochs": args.epochs} if args.epochs else {}
    values: dict[str, Any] = {
        "dataset": folder / "dataset",
        "out": folder / precision,
        "strategies": [args.strategy],
        "baselines": [],
        "workers": 1,
        "seeds": list(range(42, 42 + args.seeds)),
        "schedule": {"fractions": args.fractions},
        "model": {"base_channels": args.base_channels},
        "training": training,
        "device": {"precision": precision},
    }
    config = parse(ExperimentConfig, values, "benchmark")
    run_experiment(config)
    return np.array(
        [
            [read_iteration(run.folder / f"iteration_{i}").metrics["f1"] for i in range(len(run.counts))]
            for run in plan_runs(config, n_train)
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print F1 of every seed in both precisions, their difference, and the spread over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--micrographs", type=int, default=60)
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategy", default="uncertainty")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--epochs", type=int, help="epochs of the first training, instead of the protocol's")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulation = SIMULATION.model_copy(update={"n_micrographs": args.micrographs})
        n_train = len(simulate_dataset(folder / "dataset", simulation).rows("train"))
        low, full = (curves(args, folder, precision, n_train) for precision in PRECISIONS)
    print(f"{n_train} training images, {args.base_channels} channels, {args.strategy}")
    print("F1 of the last iteration (mean over iterations)")
    for i, (a, b) in enumerate(zip(low, full, strict=True)):
        print(f"seed {42 + i}  bf16 {a[-1]:.4f} ({a.mean():.4f})  fp32 {b[-1]:.4f} ({b.mean():.4f})")
    for what, a, b in (
        ("last iteration", low[:, -1], full[:, -1]),
        ("mean over iterations", low.mean(axis=1), full.mean(axis=1)),
    ):
        line = f"{what}: bf16 − fp32 {np.mean(a - b):+.4f}"
        if args.seeds > 1:
            line += f" (by seed {', '.join(f'{d:+.4f}' for d in a - b)}); standard deviation over seeds: "
            line += f"bf16 {a.std(ddof=1):.4f}, fp32 {b.std(ddof=1):.4f}"
        print(line)


if __name__ == "__main__":
    main()
