"""What doing identical work once saves: on the protocol by plan, on a small experiment by doing both.

    python benchmarks/reuse.py [--train 60] [--size 64] [--base-channels 4] [--seeds 2]

The protocol is that of `configs/protocol.toml`, with 534 validation and 486 test images. The small
experiment has its strategies and baselines; there two strategies may choose the same images by chance,
which saves more than the plan can know. It is run with one cache for all of its runs, then again with
every run alone and a cache of its own, where nothing that another run does can be found. Passes are those
that were really made; the plan's are set beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import write_dataset

from cryoquery import run_experiment
from cryoquery.active.iteration import FinishedIteration, read_iteration
from cryoquery.active.progress import Event, ImagesPassed
from cryoquery.config import parse
from cryoquery.experiment.config import ExperimentConfig, load_config, plan_runs
from cryoquery.experiment.plan import Cost, make_plan
from cryoquery.network.checkpoint import load_weights

PROTOCOL = Path(__file__).parents[1] / "configs" / "protocol.toml"


class Counter:
    """Counts the images that pass the network."""

    def __init__(self) -> None:
        self.n_training = 0
        self.n_inference = 0

    def __call__(self, event: Event) -> None:
        """See `cryoquery.active.progress.Progress`."""
        if isinstance(event, ImagesPassed):
            self.n_training += event.n_images * event.trained
            self.n_inference += event.n_images * (not event.trained)


@dataclass(frozen=True)
class Done:
    """A run, or several: what was counted, what was planned, and how long it took."""

    n_training: int
    n_inference: int
    planned: Cost
    seconds: float

    def __add__(self, other: Done) -> Done:
        return Done(
            self.n_training + other.n_training,
            self.n_inference + other.n_inference,
            self.planned + other.planned,
            self.seconds + other.seconds,
        )

    @property
    def n_passes(self) -> int:
        """Images passed through the network, in either direction."""
        return self.n_training + self.n_inference

    def __str__(self) -> str:
        return (
            f"{self.n_training} training and {self.n_inference} inference passes in {self.seconds:.1f} s "
            f"(planned: {self.planned.n_training} and {self.planned.n_inference})"
        )


def report_protocol(path: Path, folder: Path, n_images: dict[str, int]) -> None:
    """The plan of an experiment with so many images in each split; only their number matters."""
    write_dataset(folder, n_images, 16)
    plan = make_plan(load_config(path).model_copy(update={"dataset": folder, "image_size": None}))
    cost = plan.cost
    n_once = cost.n_training + cost.n_inference
    n_saved = cost.n_saved_training + cost.n_saved_inference
    without = Cost(cost.n_training + cost.n_saved_training, cost.n_inference + cost.n_saved_inference)
    print(f"{path.name}: {len(plan.runs)} runs on {n_images}")
    print(f"  without reuse {without.n_training} training and {without.n_inference} inference passes")
    print(f"  once          {cost.n_training} training and {cost.n_inference} inference passes")
    saved_work = 1 - cost.work / without.work
    print(f"  saved {100 * cost.saved:.1f} % of {n_once + n_saved} passes; "
          f"{100 * saved_work:.1f} % where a training pass counts three times")  # fmt: skip


def do(config: ExperimentConfig) -> Done:
    """Run an experiment from the beginning."""
    counter, planned = Counter(), make_plan(config).cost
    started = time.perf_counter()
    run_experiment(config, counter)
    return Done(counter.n_training, counter.n_inference, planned, time.perf_counter() - started)


def results(config: ExperimentConfig, n_train: int) -> dict[tuple[str, int], list[FinishedIteration]]:
    """The iterations of each run on disk."""
    return {
        (run.name, run.seed): [read_iteration(run.folder / f"iteration_{i}") for i in range(len(run.counts))]
        for run in plan_runs(config, n_train)
    }


def same(first: Sequence[FinishedIteration], second: Sequence[FinishedIteration]) -> bool:
    """Whether two runs chose the same images and ended up with the same weights, bit by bit."""
    for one, other in zip(first, second, strict=True):
        if one.labeled.tolist() != other.labeled.tolist() or one.query.tolist() != other.query.tolist():
            return False
        a, b = (load_weights(iteration.folder / "model.pt")[0] for iteration in (one, other))
        if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return True


def measure(args: argparse.Namespace, folder: Path) -> None:
    """A small experiment with one cache, with none shared, and once more with the cache of the first."""
    n_images = {"train": args.train, "val": args.train // 5}
    write_dataset(folder / "dataset", n_images, args.size)
    values: dict[str, Any] = {
        "dataset": folder / "dataset",
        "workers": 1,
        "seeds": list(range(42, 42 + args.seeds)),
        "schedule": {"fractions": args.schedule},
        "model": {"base_channels": args.base_channels},
        "training": {"initial_epochs": args.epochs, "epochs": args.epochs},
    }
    values |= {"out": folder / "one", "cache": folder / "cache"}
    config = parse(ExperimentConfig, values, "benchmark")
    shared, expected = do(config), results(config, args.train)
    alone, wrong = Done(0, 0, Cost(), 0.0), []
    parts: list[dict[str, Any]] = [{"strategies": (name,), "baselines": ()} for name in config.strategies]
    parts += [{"strategies": (), "baselines": (name,)} for name in config.baselines]
    for i, part in enumerate(parts):
        single = config.model_copy(update={**part, "out": folder / f"alone_{i}", "cache": None})
        alone += do(single)
        found = results(single, args.train)
        wrong += [str(key) for key, iterations in found.items() if not same(iterations, expected[key])]
    again = do(config.model_copy(update={"out": folder / "again"}))
    print(f"measured: {len(expected)} runs on {n_images}, {args.size}², {args.base_channels} channels")
    print(f"  every run alone {alone}")
    print(f"  one cache       {shared}")
    print(f"  saved {100 * (1 - shared.n_passes / alone.n_passes):.1f} % of the passes; "
          f"{alone.seconds / shared.seconds:.2f} times as fast")  # fmt: skip
    print(f"  another experiment with that cache: {again.n_passes} passes, {again.seconds:.1f} s")
    print(f"  selections and weights: {'OTHER: ' + ', '.join(wrong) if wrong else 'the same'}")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan of the protocol, then what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", type=int, default=60, help="images to learn from in the small experiment")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    parser.add_argument("--base-channels", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--schedule", type=float, nargs="+", default=[0.2, 0.4, 0.6, 0.8, 1.0])
    parser.add_argument("--config", type=Path, default=PROTOCOL, help="the experiment that is only planned")
    parser.add_argument("--planned", type=int, nargs=3, default=(5172, 534, 486), help="its train, val, test")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_images = dict(zip(("train", "val", "test"), args.planned, strict=True))
        report_protocol(args.config, folder / "planned", n_images)
        measure(args, folder)


if __name__ == "__main__":
    main()
