"""One training on one device and on several: seconds per epoch, and what comes out.

    python benchmarks/devices.py [--devices 2] [--base-channels 16] [--size 128] [--images 64]

On GPUs each process has one of them. On a CPU the processes share its cores and talk through gloo, so
that no gain is to be expected; what is measured there is what talking costs. Starting the processes is
measured apart: it is paid once per training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from measuring import ratio, write_dataset

from cryoquery.active.oracles import SimulatedOracle
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.network.device import DeviceConfig, describe
from cryoquery.network.model import AttentionUNet, ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig, TrainingStep
from cryoquery.network.predict import Predictor
from cryoquery.network.train import fit
from cryoquery.picking.evaluate import evaluate


@dataclass(frozen=True)
class Result:
    """A training that is done."""

    network: AttentionUNet
    epochs: list[float]
    """Seconds of each epoch but the first."""
    rest: float
    """The other seconds: starting, warming up, recalibrating."""


def train(training: Training, config: DeviceConfig) -> Result:
    """Train as ``config`` says."""
    ends: list[float] = []

    def watch(step: TrainingStep) -> None:
        if step.loss is not None:
            ends.append(time.perf_counter())

    started = time.perf_counter()
    network = fit(training, config.fabric(), watch, config)
    epochs = [b - a for a, b in pairwise(ends)]
    return Result(network, epochs, time.perf_counter() - started - sum(epochs))


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line per number of devices, and how they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--base-channels", type=int, default=16)
    parser.add_argument("--size", type=int, default=128, help="height and width of the images in pixels")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="of all devices together")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"))
    args = parser.parse_args(argv)
    one, several = (DeviceConfig(precision=args.precision, n_devices=n) for n in (1, args.devices))
    fabric = several.fabric()
    model = ModelConfig(base_channels=args.base_channels)
    print(f"{args.images} images of {args.size}², {args.base_channels} channels, batches of {args.batch}")
    print(f"{describe(fabric)}, {fabric.strategy.precision.precision}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        n_images = {"train": args.images, "val": max(4, args.images // 8)}
        dataset = write_dataset(Path(folder) / "dataset", n_images, args.size)
        rows, oracle = np.arange(args.images), SimulatedOracle(dataset)
        oracle.ask(rows)
        training = Training(
            start=initial_weights(model, 0),
            model=model,
            labeled=LabeledImages(Pool.of(dataset), rows, oracle.masks),
            config=TrainingConfig(initial_epochs=args.epochs, batch_size=args.batch),
            from_scratch=True,
            seed=0,
        )
        for config in (one, several):
            done = train(training, config)
            results.append(done)
            f1 = evaluate(Predictor(done.network, fabric, args.batch), dataset, "val").scores["f1"]
            print(f"{config.n_devices} device(s)  {median(done.epochs):.3f} s per epoch, "
                  f"{done.rest:.1f} s beside, F1 {f1:.3f}")  # fmt: skip
    print(f"ratio of one to {args.devices}: {ratio(results[0].epochs, results[1].epochs)}")
    pairs = list(zip(*(result.network.parameters() for result in results), strict=True))
    apart = max(float((a - b).detach().abs().max()) for a, b in pairs)
    largest = max(float(a.detach().abs().max()) for a, _ in pairs)
    print(f"largest difference of weights {apart:.4f}, largest weight {largest:.3f}")


if __name__ == "__main__":
    main()
