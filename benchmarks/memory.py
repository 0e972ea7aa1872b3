"""Peak memory of scoring a pool, for one pool and for one ten times as large.

    python benchmarks/memory.py [--pools 500 5000] [--size 256] [--base-channels 8]

Every pool is scored in a process of its own: all signals of all images, kept in files as an experiment
keeps them. The features of an image are 16 × base channels numbers; nothing else grows with the pool.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cryoquery.acquisition.candidates import NetworkSignals
from cryoquery.acquisition.image_scores import FEATURES
from cryoquery.data.pool import Pool
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import AttentionUNet
from cryoquery.network.predict import Predictor
from cryoquery.storage.cache import SignalCache

CHUNK = 256


def write_pool(path: Path, n: int, size: int) -> None:
    """``n`` images of noise."""
    rng = np.random.default_rng(0)
    levels = np.lib.format.open_memmap(path, "w+", np.uint8, (n, size, size))
    for start in range(0, n, CHUNK):
        some = levels[start : start + CHUNK]
        some[:] = rng.integers(64, 192, some.shape, dtype=np.uint8)
    levels.flush()


def score(path: Path, args: argparse.Namespace) -> dict[str, float]:
    """Score the pool in ``path``: MiB before, at the peak, and at the peak of a GPU."""
    levels = np.load(path, mmap_mode="r")
    n, height, width = levels.shape
    pool = Pool(levels, np.tile([height, width], (n, 1)), ("",) * n, ("",) * n)
    network = AttentionUNet(base_channels=args.base_channels)
    predictor = Predictor(network, DeviceConfig(precision=args.precision).fabric(), args.batch)
    before = peak_mib()
    signals = NetworkSignals(lambda: predictor, pool, SignalCache(path.with_suffix(".signals")))
    signals.values(FEATURES, np.arange(n))
    on_gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return {"before": before, "peak": peak_mib(), "gpu": on_gpu}


def peak_mib() -> float:
    """The most memory that this process had so far, in MiB."""
    # Not getrusage: what a process was before it became this one would count.
    status = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in status)["VmHWM"].split()[0]) / 1024


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line per pool, and the ratio of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pools", type=int, nargs="+", default=[500, 5000], help="images in each pool")
    parser.add_argument("--size", type=int, default=256, help="height and width of the images in pixels")
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"))
    parser.add_argument("--only", type=Path, help="score this pool, here, and nothing else")
    args = parser.parse_args(argv)
    if args.only:
        print(json.dumps(score(args.only, args)))
        return
    kept = ("base_channels", "batch", "precision")
    options = [text for name in kept for text in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    results = []
    print(f"images of {args.size}², {args.base_channels} channels, batches of {args.batch}")
    for n in args.pools:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "levels.npy"
            write_pool(path, n, args.size)
            command = [sys.executable, __file__, *options, "--only", str(path)]
            child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(child.stdout))
        features = n * 16 * args.base_channels * 4 / 2**20
        peak, before, gpu = (results[-1][name] for name in ("peak", "before", "gpu"))
        print(f"{n:6} images: peak {peak:7.1f} MiB, of which {before:.1f} before scoring; "
              f"GPU {gpu:.1f} MiB; features {features:.1f} MiB")  # fmt: skip
    print(f"ratio {results[-1]['peak'] / results[0]['peak']:.3f}")


if __name__ == "__main__":
    main()
