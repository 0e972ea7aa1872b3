"""A training step and an epoch as this project makes them, against the same written plainly.

    python benchmarks/training.py [--base-channels 64] [--size 256] [--batch 4] [--rounds 5] [--compile]

The plain way stands in `plain.py`. A step has its images on the device already. An epoch reads them: the
plain one decodes PNG files, ours (`cryoquery.network.train.fit`) takes them from the dataset and turns
them. All variants take turns in one process; what counts is the ratio, not the seconds. On a GPU ours is
measured with and without deterministic algorithms, and the plain one with and without the TF32 that
torch uses in convolutions unless told otherwise.

The rate in FLOP/s is set against that of a large matrix product on the same machine, in both precisions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import plain
import torch
from measuring import ratio, release, schedule_order, synchronize, write_dataset
from torch.utils.flop_counter import FlopCounterMode

from cryoquery.active.oracles import SimulatedOracle
from cryoquery.data.dataset import IGNORE, PARTICLE
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.network.device import DeviceConfig, describe, place
from cryoquery.network.model import AttentionUNet, ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig, TrainingStep
from cryoquery.network.predict import network_input
from cryoquery.network.train import fit

Task = Callable[[], object]


@dataclass(frozen=True)
class Algorithms:
    """What cuDNN may do; the first values are those that torch starts with."""

    deterministic: bool = False
    benchmark: bool = False
    tf32: bool = True

    def choose(self) -> None:
        """Make these the ones that are used from here on."""
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.benchmark = self.benchmark
        torch.backends.cudnn.allow_tf32 = self.tf32


PLAIN, PLAIN_STRICT = "plain", "plain, no TF32"
OURS, FASTER, COMPILED = "ours", "ours, not deterministic", "ours, compiled"


def our_step(base_channels: int, levels: torch.Tensor, masks: torch.Tensor, device: DeviceConfig) -> Task:
    """What `cryoquery.network.optimize` does with each batch, on ``levels`` and ``masks`` (n, 1, h, w)."""
    fabric = device.fabric()
    network = place(AttentionUNet(base_channels=base_channels), fabric)
    config = TrainingConfig()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=config.betas, fused=True)
    module: Any = torch.compile(network) if device.compile else network
    wrapped, optimizer = fabric.setup(module, optimizer)
    loss = config.loss()
    wrapped.train()

    def step() -> None:
        fabric.backward(loss(wrapped(network_input(levels)), masks == PARTICLE, masks != IGNORE))
        optimizer.step()
        optimizer.zero_grad()

    return step


def chosen(algorithms: Algorithms, task: Task) -> Task:
    """A task under the algorithms of its own."""

    def run() -> None:
        algorithms.choose()
        task()

    return run


def measure_steps(args: argparse.Namespace, config: DeviceConfig) -> None:
    """Seconds per step of all variants."""
    device = config.fabric().device
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, 1, args.size, args.size)
    levels = torch.randint(64, 192, shape, dtype=torch.uint8, generator=generator).to(device)
    masks = (torch.rand(shape, generator=generator) < 0.2).to(torch.uint8).to(device)
    trainer = plain.Trainer(args.base_channels, device)
    images, target = (levels.float() - 128) / 32, masks.float()
    tasks = {PLAIN: chosen(Algorithms(), partial(trainer.step, images, target))}
    make = partial(our_step, args.base_channels, levels, masks)
    tasks[OURS] = chosen(Algorithms(deterministic=True), make(config))
    if device.type == "cuda":
        tasks[PLAIN_STRICT] = chosen(Algorithms(tf32=False), partial(trainer.step, images, target))
        tasks[FASTER] = chosen(Algorithms(benchmark=True), make(config))
    if args.compile:
        compiled = make(config.model_copy(update={"compile": True}))
        tasks[COMPILED] = chosen(Algorithms(deterministic=True), compiled)
        started = time.perf_counter()
        tasks[COMPILED]()
        synchronize(device)
        compilation = time.perf_counter() - started
    seconds = schedule_order(tasks, args.rounds, device)
    print("\na step, its images on the device")
    report(seconds, args, args.batch)
    if args.compile:
        first = compilation - median(seconds[COMPILED])
        gain = median(seconds[OURS]) - median(seconds[COMPILED])
        after = f"pays after {first / gain:.0f} steps" if gain > 0 else "never pays"
        print(f"  compilation takes {first:.1f} s and {after}")


def measure_epochs(args: argparse.Namespace, config: DeviceConfig) -> None:
    """Seconds per epoch; the plain epochs run between those of one training of ours."""
    fabric = config.fabric()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_dataset(folder / "dataset", {"train": args.images}, args.size)
        plain.write_folder(folder / "files", dataset.images, dataset.masks)
        oracle, rows = SimulatedOracle(dataset), np.arange(args.images)
        oracle.ask(rows)
        model = ModelConfig(base_channels=args.base_channels)
        # On a GPU an epoch that is not timed fills the memory again that the plain one was given.
        n_each = 2 if fabric.device.type == "cuda" else 1
        training = Training(
            start=initial_weights(model, 0),
            model=model,
            labeled=LabeledImages(Pool.of(dataset), rows, oracle.masks),
            config=TrainingConfig(initial_epochs=n_each * (args.rounds + 1), batch_size=args.batch),
            from_scratch=True,
            seed=0,
        )
        trainer = plain.Trainer(args.base_channels, fabric.device)
        n_workers = args.workers if args.workers is not None else 4 * (fabric.device.type == "cuda")
        plain_epoch = partial(trainer.epoch, folder / "files", args.batch, n_workers)
        alternation = Alternation(plain_epoch, n_each, fabric.device)
        fit(training, fabric, alternation, config)
    print(f"\nan epoch of {args.images} images; the plain one decodes PNG files with {n_workers} processes")
    report({name: values[1:] for name, values in alternation.seconds.items()}, args, args.images)


class Alternation:
    """Watches a training of ours and does a plain epoch after every ``n_each`` of its own."""

    def __init__(self, plain_epoch: Task, n_each: int, device: torch.device) -> None:
        self._plain_epoch, self._n_each, self._device = plain_epoch, n_each, device
        self._started = time.perf_counter()
        self.seconds: dict[str, list[float]] = {PLAIN: [], OURS: []}

    def __call__(self, step: TrainingStep) -> None:
        """See `cryoquery.network.train.Watch`."""
        if step.loss is None:
            return
        synchronize(self._device)
        if (step.epoch + 1) % self._n_each:
            self._started = time.perf_counter()
            return
        self.seconds[OURS].append(time.perf_counter() - self._started)
        ours = Algorithms(torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
        release(self._device)
        Algorithms().choose()
        started = time.perf_counter()
        self._plain_epoch()
        synchronize(self._device)
        self.seconds[PLAIN].append(time.perf_counter() - started)
        release(self._device)
        ours.choose()
        self._started = time.perf_counter()


def report(seconds: dict[str, list[float]], args: argparse.Namespace, n_images: int) -> None:
    """A line per variant: seconds, images/s, FLOP/s and its share of a matrix product, ratio to plain."""
    flop = flop_per_image(args.base_channels, args.size)
    for name, values in seconds.items():
        rate = n_images / median(values)
        of_matmul = "; ".join(
            f"{100 * rate * flop / peak:.0f} % of a product in {precision}"
            for precision, peak in args.peaks.items()
        )
        print(f"  {name:24} {median(values):8.4f} s  {rate:8.2f} images/s  {rate * flop / 1e12:7.2f} TFLOP/s")
        print(f"  {'':24} {of_matmul}")
    for name in seconds:
        if name not in (PLAIN, PLAIN_STRICT):
            print(f"  ratio of plain to {name}: {ratio(seconds[PLAIN], seconds[name])}")
    if PLAIN_STRICT in seconds:
        print(f"  ratio of {PLAIN_STRICT} to ours: {ratio(seconds[PLAIN_STRICT], seconds[OURS])}")
        print(f"  price of determinism: {ratio(seconds[OURS], seconds[FASTER])}")


def flop_per_image(base_channels: int, size: int) -> float:
    """Floating-point operations to pass one image forward and backward; a multiply-add is two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = AttentionUNet(base_channels=base_channels)
        network(torch.empty(1, 1, size, size)).sum().backward()
    return float(counter.get_total_flops())


def matmul_rates(side: int, device: torch.device) -> dict[str, float]:
    """FLOP/s of a matrix product by precision."""
    rates = {
        name: matmul_rate(side, dtype, device)
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
    }
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        rates["tf32"] = matmul_rate(side, torch.float32, device)
        torch.backends.cuda.matmul.allow_tf32 = False
    return rates


def matmul_rate(side: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the product of two square matrices at random."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    n = 20 if device.type == "cuda" else 1

    def task() -> None:
        for _ in range(n):
            torch.mm(a, b)

    (seconds,) = schedule_order({"product": task}, 9, device).values()
    return n * 2 * side**3 / median(seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=("step", "epoch"), help="measure one of the two")
    parser.add_argument("--base-channels", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="height and width of the images in pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=16, help="in an epoch")
    parser.add_argument("--workers", type=int, help="that decode for the plain way (GPU: 4, CPU: 0)")
    parser.add_argument("--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"))
    parser.add_argument("--compile", action="store_true", help="measure the step through torch.compile, too")
    parser.add_argument("--no-deterministic", action="store_true", help="let cuDNN choose, in our epoch")
    parser.add_argument("--matmul", type=int, help="side of the matrices (GPU: 8192, CPU: 2048)")
    args = parser.parse_args(argv)
    config = DeviceConfig(precision=args.precision)
    fabric = config.fabric()
    side = args.matmul or (8192 if fabric.device.type == "cuda" else 2048)
    args.peaks = matmul_rates(side, fabric.device)
    print(f"{args.base_channels} channels, batches of {args.batch} × {args.size}² on {describe(fabric)}")
    print(f"ours in {fabric.strategy.precision.precision}, torch {torch.__version__}")
    print(f"{flop_per_image(args.base_channels, args.size) / 1e12:.4f} TFLOP per image, forward and backward")
    for name, peak in args.peaks.items():
        print(f"product of {side}² matrices in {name}: {peak / 1e12:.2f} TFLOP/s")
    if args.only != "epoch":
        measure_steps(args, config)
        if fabric.device.type == "cpu":
            print("  price of determinism: none, a CPU has the same algorithms either way")
    if args.only != "step":
        measure_epochs(args, config.model_copy(update={"deterministic": not args.no_deterministic}))


if __name__ == "__main__":
    main()
