"""A small experiment with one local worker and with two: how much sooner it is done.

    python benchmarks/workers.py [--train 60] [--size 96] [--base-channels 8] [--seeds 2] [--rounds 1]

Every worker computes with one thread, so that two of them have twice the cores of one and the results of
both are the same to the bit, which is checked. One process that spreads over all cores is timed as well.
Starting the processes counts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import ratio, write_dataset

from cryoquery import run_experiment

WAYS = {"one worker": (1, 1), "one on all cores": (1, None), "two workers": (2, 1)}
"""Name → (processes, threads of each; None: as many as there are cores)"""


def configure(
    dataset: Path, out: Path, asked: argparse.Namespace, workers: int, threads: int | None
) -> dict[str, Any]:
    """Four strategies and both baselines."""
    return {
        "dataset": str(dataset),
        "out": str(out),
        "strategies": ["uncertainty", "entropy", "diversity", "random"],
        "seeds": list(range(1, asked.seeds + 1)),
        "schedule": {"fractions": [0.1, 0.25, 0.5, 1.0]},
        "model": {"base_channels": asked.base_channels},
        "training": {"initial_epochs": 6, "epochs": 3},
        "device": {"threads": threads or len(os.sched_getaffinity(0))},
        "workers": workers,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args(argv)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Path(scratch) / "dataset"
        write_dataset(dataset, {"train": asked.train, "val": 16}, asked.size)
        for number in range(asked.rounds):
            queries = {}
            for way, (workers, threads) in WAYS.items():
                out = Path(scratch) / f"{number} {way}"
                started = time.perf_counter()
                run_experiment(configure(dataset, out, asked, workers, threads))
                seconds[way].append(time.perf_counter() - started)
                queries[way] = {file.relative_to(out): file.read_bytes() for file in out.rglob("query.json")}
            assert queries["one worker"] == queries["two workers"], "two workers choose what one chooses"
    two = seconds["two workers"]
    for way, values in seconds.items():
        print(f"{way:16}  {min(values):6.1f} s, {ratio(values, two)} times as long as two workers")


if __name__ == "__main__":
    main()
