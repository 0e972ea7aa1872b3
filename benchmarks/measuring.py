"""What several benchmarks need: rounds in turn on one device, ratios, and images that are made up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from cryoquery.data.dataset import SPLITS, Dataset, ImageRecord, new_dataset, open_dataset
from cryoquery.data.preprocess import draw_mask


def average_precision(hits: NDArray[np.bool_], n_truth: int) -> float:
    """Of picks by falling score: ``hits`` (n,) says which match one more of ``n_truth`` particles."""
    return float((np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)).sum() / n_truth)


def seconds_of(task: Callable[[], object], device: torch.device) -> float:
    """Seconds until a task is done, also on the device."""
    synchronize(device)
    started = time.perf_counter()
    task()
    synchronize(device)
    return time.perf_counter() - started


def schedule_order(
    tasks: Mapping[str, Callable[[], object]], n_rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each task in each round; the tasks take turns, so that what disturbs hits all of them.

    Every task runs once without being timed: before the first round, and on a GPU before every round,
    because there each finds the memory emptied of what another left.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(n_rounds):
        for name, task in tasks.items():
            if i == 0 or device.type == "cuda":
                release(device)
                task()
            seconds[name].append(seconds_of(task, device))
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give back the memory of a GPU that torch keeps without need."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """The median over rounds of how many times as long ``slow`` takes, and the range."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"


def write_dataset(folder: Path, n_images: Mapping[str, int], size: int, n_discs: int = 3) -> Dataset:
    """A dataset of dark discs on noise, ``n_images`` of each split, ``size``² pixels, two groups in turn."""
    rng = np.random.default_rng(0)
    diameter = size / 4
    records: list[ImageRecord] = []
    particles: dict[tuple[str, str], np.ndarray] = {}
    with new_dataset(folder, sum(n_images.values()), size, size) as writer:
        for split in (name for name in SPLITS for _ in range(n_images.get(name, 0))):
            row = len(records)
            name, group = f"m{row:06d}", "AB"[row % 2]
            centers = rng.uniform(diameter / 2, size - diameter / 2, (n_discs, 2))
            mask = draw_mask((size, size), centers, np.full(n_discs, diameter))
            noise = rng.integers(64, 192, (size, size), dtype=np.uint8)
            writer.put(row, noise - np.uint8(48) * mask, mask)
            particles[group, name] = np.column_stack([centers, np.full(n_discs, diameter)])
            records.append(
                ImageRecord(
                    id=name,
                    micrograph=name,
                    group=group,
                    split=split,
                    height_px=size,
                    width_px=size,
                    scale=1.0,
                    top=0,
                    left=0,
                    content_height=size,
                    content_width=size,
                    pixel_size=None,
                    diameter_px=diameter,
                    field_of_view=name,
                    center=0.0,
                    spread=1.0,
                )
            )
        writer.finish(records, particles, {"config": {"disc_fraction": 1.0}})
    return open_dataset(folder)
