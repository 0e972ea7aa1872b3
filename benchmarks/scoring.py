"""What it costs to score the pool, against a bare pass of the network and against one strategy at a time.

    python benchmarks/scoring.py [--base-channels 64] [--size 256] [--images 32] [--batch 16] [--rounds 5]

Bare is the same network in the same precision and layout over the same images, batch after batch, and
nothing is computed from what it says. Ours yields all pixel scores and the features in one pass
(`cryoquery.network.predict.compute_signals`). The plain way (`plain.py`) makes a pass for everything that a
strategy wants to know, in float32, and keeps probability maps in files. All take turns in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import plain
import torch
from lightning_fabric import Fabric
from measuring import ratio, schedule_order, write_dataset

from cryoquery.acquisition.candidates import NetworkSignals
from cryoquery.acquisition.image_scores import BASE, FEATURES, STATISTICS
from cryoquery.data.pool import Pool
from cryoquery.network.device import DeviceConfig, describe
from cryoquery.network.model import AttentionUNet
from cryoquery.network.predict import Predictor, compute_signals
from cryoquery.storage.cache import SignalCache

ALL_SIGNALS = {signal.key: STATISTICS[signal] for signal in BASE}


def bare_pass(network: AttentionUNet, fabric: Fabric, levels: np.ndarray, batch_size: int) -> None:
    """The network over images (n, h, w), in inference mode and bfloat16 where ``fabric`` has it."""
    device = fabric.device
    low = str(fabric.strategy.precision.precision) == "bf16-mixed"
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
        for start in range(0, len(levels), batch_size):
            batch = torch.from_numpy(np.array(levels[start : start + batch_size]))
            images = (batch.to(device).float()[:, None] - 128) / 32
            network(images.contiguous(memory_format=torch.channels_last))


def repeated_query(predictor: Predictor, pool: Pool, folder: Path) -> tuple[int, float, int, float]:
    """Images that pass the network and seconds, for a query and for the same query once more."""
    answers: list[float] = []
    for _ in range(2):
        passed: list[int] = []
        signals = NetworkSignals(lambda: predictor, pool, SignalCache(folder / "signals"), passed.append)
        started = time.perf_counter()
        for signal in (BASE[0], FEATURES):
            signals.values(signal, np.arange(len(pool)))
        answers += [sum(passed), time.perf_counter() - started]
    n_first, first, n_again, again = answers
    return int(n_first), first, int(n_again), again


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line per way to score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base-channels", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="height and width of the images in pixels")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="that decode for the plain way (GPU: 4, CPU: 0)")
    parser.add_argument("--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"))
    args = parser.parse_args(argv)
    fabric = DeviceConfig(precision=args.precision).fabric()
    n_workers = args.workers if args.workers is not None else 4 * (fabric.device.type == "cuda")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_dataset(folder / "dataset", {"train": args.images}, args.size)
        pool, rows = Pool.of(dataset), np.arange(args.images)
        predictor = Predictor(AttentionUNet(base_channels=args.base_channels), fabric, args.batch)
        passes: dict[str, Callable[[], object]] = {
            "bare": lambda: bare_pass(predictor.network, fabric, pool.levels, args.batch),
            "all signals": lambda: compute_signals(predictor, pool, rows, ALL_SIGNALS),
        }
        seconds = schedule_order(passes, args.rounds, fabric.device)
        print(f"{args.images} images of {args.size}², {args.base_channels} channels, batches of {args.batch}")
        print(f"{describe(fabric)}, {fabric.strategy.precision.precision}")
        for name, values in seconds.items():
            print(f"{name:12} {median(values):8.4f} s  {args.images / median(values):8.1f} images/s")
        print(f"ratio of all signals to bare: {ratio(seconds['all signals'], seconds['bare'])}")
        n_first, first, n_again, again = repeated_query(predictor, pool, folder)
        print(
            f"a query passes {n_first} images in {first:.4f} s; once more {n_again} images in {again:.4f} s"
        )
        compare_with_plain(args, predictor, pool, dataset.masks, folder, n_workers)


def compare_with_plain(
    args: argparse.Namespace,
    predictor: Predictor,
    pool: Pool,
    masks: np.ndarray,
    folder: Path,
    n_workers: int,
) -> None:
    """Each strategy in the plain way beside one pass of ours."""
    device = predictor.fabric.device
    plain.write_folder(folder / "files", pool.levels, masks)
    (folder / "maps").mkdir()
    network = AttentionUNet(base_channels=args.base_channels).to(device)
    arguments = (network, folder / "files", folder / "maps", args.batch, n_workers)
    tasks: dict[str, Callable[[], object]] = {
        name: partial(plain.score_pool, name, *arguments) for name in plain.PASSES
    }
    rows = np.arange(len(pool))
    tasks["ours"] = lambda: compute_signals(predictor, pool, rows, ALL_SIGNALS)
    seconds = schedule_order(tasks, max(1, args.rounds // 2), device)
    ours = seconds.pop("ours")
    for name, values in seconds.items():
        print(f"plain {name:12} {median(values):8.4f} s  {ratio(values, ours)} times as long as ours")
    every = [sum(values) for values in zip(*seconds.values(), strict=True)]
    n_passes = sum(map(len, plain.PASSES.values()))
    print(f"plain, all of them: {n_passes} passes, {median(every):.3f} s")
    print(f"                    {ratio(every, ours)} times as long as ours, where they ask the same network")


if __name__ == "__main__":
    main()
