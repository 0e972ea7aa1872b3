"""Whole micrographs in and out: import with one worker and with several, picking in a pipeline and plainly.

    python benchmarks/micrographs.py [--side 4096] [--micrographs 8] [--tile 768] [--base-channels 64]

Plain picking is one micrograph after the other: read, normalize, predict, find. Both ways run in turn
in one process and give the same picks; what counts is the ratio. Peak memory is that of a new process
for n and for 2n micrographs. The network is untrained: it costs what a trained one costs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from cryoquery.data.build import BuildConfig, build_dataset, default_workers
from cryoquery.data.preprocess import draw_mask
from cryoquery.data.source import SourceMicrograph
from cryoquery.formats import Picks, concatenate, read_micrograph, write_coordinates, write_micrograph
from cryoquery.network.device import DeviceConfig, describe
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.predict import Predictor
from cryoquery.picking.batch import pick_micrographs
from cryoquery.picking.picker import BATCH_PIXELS, Picker, PickOptions, pick_file, prepare_file
from cryoquery.picking.threshold import PickingRecipe

N_ROUNDS = 3
PARTICLE_PX = 18.0
"""Diameter of a particle as the network sees it."""


@dataclass(frozen=True)
class Sizes:
    """What the command line asks for."""

    side: int = 4096
    """Height and width of a micrograph."""
    diameter: float = 100.0
    """Of a particle, px of the micrograph."""
    micrographs: int = 8
    tile: int = 768
    """Side of the images that the network is shown."""
    base_channels: int = 64
    workers: int = default_workers()


def write_examples(folder: Path, sizes: Sizes, n: int) -> list[Path]:
    """Micrographs of noise, dark discs and hot pixels."""
    paths = []
    for i in range(n):
        rng = np.random.default_rng(i)
        centers = rng.uniform(0, sizes.side, (200, 2))
        discs = draw_mask((sizes.side, sizes.side), centers, np.full(200, sizes.diameter))
        pixels = rng.normal(1000, 50, discs.shape).astype(np.float32) - np.float32(20) * discs
        pixels.flat[rng.integers(0, pixels.size, 200)] = 5000
        paths.append(folder / f"m{i}.mrc")
        write_micrograph(paths[-1], pixels, 1.0)
    return paths


def import_all(paths: list[Path], out: Path, sizes: Sizes, n_workers: int) -> None:
    """Make a dataset of fields."""
    particles = np.array([[sizes.side / 2, sizes.side / 2, sizes.diameter]])
    shape = (sizes.side, sizes.side)
    sources = [
        SourceMicrograph(path.stem, "g", shape, partial(read_pixels, path), particles) for path in paths
    ]
    build_dataset(sources, out, BuildConfig(field=256, particle_px=PARTICLE_PX, n_workers=n_workers))


def read_pixels(path: Path) -> np.ndarray:
    """Intensities (h, w)."""
    return read_micrograph(path).pixels


def make_picker(sizes: Sizes) -> Picker:
    """An untrained network that finds a lot, on the device that `DeviceConfig` chooses."""
    config = ModelConfig(base_channels=sizes.base_channels)
    network = config.build()
    network.load_state_dict(initial_weights(config, 0))
    torch.nn.init.normal_(network.head.weight, std=1.0, generator=torch.Generator().manual_seed(0))
    recipe = PickingRecipe(
        scale="particle",
        image_side=sizes.tile,
        particle_px=PARTICLE_PX,
        particle_px_range=(PARTICLE_PX, PARTICLE_PX),
        disc_fraction=0.7,
        invert=False,
        diameter_angstrom=None,
        threshold=0.2,
        tuned_on="nothing",
    )
    batch_size = int(np.clip(BATCH_PIXELS // sizes.tile**2, 1, 16))
    return Picker(recipe, Predictor(network, DeviceConfig().fabric(), batch_size))


def pick_plainly(picker: Picker, paths: list[Path], out: Path, options: PickOptions) -> Picks:
    """One after the other."""
    picks = concatenate([pick_file(picker, path, options).picks for path in paths])
    write_coordinates(out, picks)
    return picks


def peak_of_import(paths: list[Path], out: Path, sizes: Sizes) -> float:
    """MiB of a process that imports."""
    import_all(paths, out, sizes, sizes.workers)
    return _peak_mib()


def peak_of_picking(paths: list[Path], out: Path, sizes: Sizes) -> float:
    """MiB of a process that picks."""
    options = PickOptions(diameter_px=sizes.diameter)
    pick_micrographs(make_picker(sizes), paths, out, options, n_workers=sizes.workers)
    return _peak_mib()


def _peak_mib() -> float:
    # Not getrusage: what a process was before it became this one would count.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def in_new_process(task: Callable[..., float], *arguments: object) -> float:
    """What ``task`` returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def time_import(paths: list[Path], folder: Path, sizes: Sizes) -> tuple[float, float]:
    """Micrographs per second with one worker and with all."""
    rates = []
    for i in range(N_ROUNDS):
        start = time.perf_counter()
        import_all(paths, folder / f"one_{i}", sizes, 1)
        middle = time.perf_counter()
        import_all(paths, folder / f"all_{i}", sizes, sizes.workers)
        rates.append((len(paths) / (middle - start), len(paths) / (time.perf_counter() - middle)))
    one, every = (max(values) for values in zip(*rates, strict=True))
    return one, every


def time_picking(picker: Picker, paths: list[Path], folder: Path, sizes: Sizes) -> tuple[float, float]:
    """Micrographs per second, plainly and in the pipeline."""
    options = PickOptions(diameter_px=sizes.diameter)
    pick_file(picker, paths[0], options)
    plain, pipeline = [], []
    for i in range(N_ROUNDS):
        start = time.perf_counter()
        one = pick_plainly(picker, paths, folder / f"plain{i}.star", options)
        middle = time.perf_counter()
        out = folder / f"pipeline{i}.star"
        two = pick_micrographs(picker, paths, out, options, n_workers=sizes.workers).picks
        plain.append(len(paths) / (middle - start))
        pipeline.append(len(paths) / (time.perf_counter() - middle))
        if not np.array_equal(one.centers_yx, two.centers_yx):
            raise SystemExit("the pipeline picks otherwise than picking one after the other")
    return max(plain), max(pipeline)


def time_network(picker: Picker, path: Path, sizes: Sizes) -> tuple[float, tuple[int, int]]:
    """Micrographs per second of those that are prepared, and the shape (h, w) that they have then."""
    prepared = prepare_file(picker, path, PickOptions(diameter_px=sizes.diameter))
    picker.predict(prepared)
    seconds = []
    for _ in range(3 * N_ROUNDS):
        start = time.perf_counter()
        picker.predict(prepared)  # ends with a copy to the host, so that the device has finished
        seconds.append(time.perf_counter() - start)
    height, width = prepared.levels.shape
    return 1 / min(seconds), (height, width)


def _precision(fabric: Fabric) -> str:
    return str(fabric.strategy.precision.precision)


def main(sizes: Sizes) -> None:
    """Print a line per measurement."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_examples(folder, sizes, 2 * sizes.micrographs)
        half = paths[: sizes.micrographs]
        print(f"{len(half)} micrographs of {sizes.side} × {sizes.side}, {sizes.workers} workers")
        slow, fast = time_import(half, folder, sizes)
        print(f"import         1 worker {slow:.2f}/s, all workers {fast:.2f}/s, ratio {fast / slow:.2f}")
        picker = make_picker(sizes)
        slow, fast = time_picking(picker, half, folder, sizes)
        print(f"picking        plainly {slow:.2f}/s, in the pipeline {fast:.2f}/s, ratio {fast / slow:.2f}")
        rate, (height, width) = time_network(picker, paths[0], sizes)
        fabric = picker.predictor.fabric
        print(f"network alone  {rate:.2f}/s: {height} × {width} px in tiles of {sizes.tile},")
        print(f"               {sizes.base_channels} channels on {describe(fabric)}, {_precision(fabric)}")
        for what, task in (("import", peak_of_import), ("picking", peak_of_picking)):
            once, twice = (
                in_new_process(task, chosen, folder / f"{what}_{len(chosen)}", sizes)
                for chosen in (half, paths)
            )
            print(f"peak memory    {what:7} {once:5.0f} MiB, twice as many micrographs {twice:5.0f} MiB, "
                  f"ratio {twice / once:.2f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for field, default in vars(Sizes()).items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(default), default=default)
    main(Sizes(**vars(parser.parse_args())))
