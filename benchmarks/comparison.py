"""How long `cryoquery compare` takes on an experiment of full size, and how much memory.

    python benchmarks/comparison.py [--size 256]

Makes up the results of six strategies, ten iterations and ten seeds with the protocol's 5,172
training and 534 held-out micrographs of 22 groups, with images of SIZE² pixels, and compares them.
The reference in the same run is reading the same JSON files and nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tomli_w

from cryoquery.data.dataset import ImageRecord, new_dataset, open_dataset

STRATEGIES = ("uncertainty", "entropy", "margin", "diversity", "hybrid", "random")
SEEDS = range(10)
COUNTS = (517, 1034, 1551, 2069, 2586, 3103, 3620, 4137, 4655, 5172)
CHILD = """
import sys
from pathlib import Path
from cryoquery import compare
compare(sys.argv[1])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0])
"""
N_TRAIN, N_HELD_OUT, N_GROUPS = 5172, 534, 22


def make_dataset(folder: Path, size: int) -> str:
    """A dataset of discs on nothing, and its fingerprint."""
    rng = np.random.default_rng(0)
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : size // 2, size // 4 : size // 2] = 1
    records, particles = [], {}
    with new_dataset(folder, N_TRAIN + N_HELD_OUT, size, size) as writer:
        for row in range(N_TRAIN + N_HELD_OUT):
            name, group = f"m{row:05d}", f"{10000 + row % N_GROUPS}"
            writer.put(row, np.full((size, size), 128, np.uint8), mask)
            particles[group, name] = np.column_stack([rng.uniform(0, size, (200, 2)), np.full(200, 18.0)])
            geometry = {"height_px": size, "width_px": size, "content_height": size, "content_width": size}
            places = {"scale": 1.0, "top": 0, "left": 0, "pixel_size": None, "diameter_px": 18.0}
            records.append(
                ImageRecord(
                    id=name,
                    micrograph=name,
                    group=group,
                    split="train" if row < N_TRAIN else "val",
                    field_of_view=name,
                    center=0.0,
                    spread=1.0,
                    **geometry,
                    **places,
                )
            )
        writer.finish(records, particles, {"config": {"disc_fraction": 1.0}})
    return open_dataset(folder).fingerprint


def make_experiment(folder: Path, dataset: Path, fingerprint: str) -> None:
    """Curves that rise with the labels, with some noise, and counts on every held-out micrograph."""
    folder.mkdir()
    config = {
        "dataset": str(dataset),
        "strategies": STRATEGIES,
        "seeds": list(SEEDS),
        "baselines": ["full_supervision", "progressive_supervised"],
        "schedule": {"counts": COUNTS},
    }
    (folder / "config.toml").write_text(tomli_w.dumps(config))
    environment = {"n_train_images": N_TRAIN, "splits": ["val"], "dataset_fingerprint": fingerprint}
    (folder / "environment.json").write_text(json.dumps(environment))
    runs = {f"{name}_sampling": COUNTS for name in STRATEGIES}
    runs |= {"full_supervision": (N_TRAIN,), "progressive_supervised": COUNTS}
    for run, counts in runs.items():
        for seed in SEEDS:
            rng = np.random.default_rng([seed, len(run)])
            order = np.random.default_rng([seed, 1 if run[0] in "um" else len(run)]).permutation(N_TRAIN)
            for i, count in enumerate(counts):
                target = folder / run / f"seed_{seed}" / f"iteration_{i}"
                target.mkdir(parents=True)
                write_iteration(target, np.sort(order[:count]), i, rng)


def write_iteration(target: Path, labeled: np.ndarray, i: int, rng: np.random.Generator) -> None:
    """`metrics.json`, `labeled_indices.json` and `query.json` of one iteration."""
    expected = 0.7 + 0.1 * (1 - np.exp(-len(labeled) / 1500))
    f1 = np.clip(expected + rng.normal(0, 0.05, N_HELD_OUT), 0, 1)
    records = []
    for m, score in enumerate(f1.tolist()):
        right, wrong = int(1e5 * score), int(1e5 * (1 - score))
        pixels = {"pixel_tp": right, "pixel_fp": wrong, "pixel_fn": wrong}
        particles = {"n_picks": 200, "n_particles": 200, "n_matched": 150}
        key = {"group": f"{10000 + m % N_GROUPS}", "micrograph": f"m{N_TRAIN + m:05d}"}
        records.append(key | pixels | particles)
    tp, fp, fn = (sum(r[f"pixel_{name}"] for r in records) for name in ("tp", "fp", "fn"))
    names = ("precision", "recall", "iou", "auc", "average_precision", "particle_f1", "particle_precision")
    metrics = dict.fromkeys((*names, "particle_recall"), 0.7) | {
        "f1": 2 * tp / (2 * tp + fp + fn),
        "split": "val",
        "labeled_fraction": len(labeled) / N_TRAIN,
        "n_labeled_images": len(labeled),
        "n_labeled_particles": 200 * len(labeled),
        "per_micrograph": records,
    }
    (target / "metrics.json").write_text(json.dumps(metrics))
    (target / "labeled_indices.json").write_text(json.dumps(labeled.tolist()))
    query = [
        {"index": int(j), "score": 1.0, "rank": k, "reason": "made up"} for k, j in enumerate(range(517))
    ]
    (target / "query.json").write_text(json.dumps(query if i + 1 < len(COUNTS) else []))


def main() -> None:
    """Make up an experiment, compare it, print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="height and width of the images in pixels")
    size = parser.parse_args().size
    with tempfile.TemporaryDirectory() as scratch:
        dataset, experiment = Path(scratch) / "dataset", Path(scratch) / "experiment"
        make_experiment(experiment, dataset, make_dataset(dataset, size))
        started = time.perf_counter()
        for path in experiment.rglob("*.json"):
            json.loads(path.read_text())
        reading = time.perf_counter() - started
        # In a process of its own: the dataset that was written above counts as memory of this one.
        started = time.perf_counter()
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(experiment)], check=True, stdout=subprocess.PIPE, text=True
        )
        comparing = time.perf_counter() - started
        page = (experiment / "comparison_results" / "report.html").stat().st_size
    peak = int(child.stdout) / 2**20
    sizes = (len(STRATEGIES), len(COUNTS), len(SEEDS), N_HELD_OUT)
    print(f"{sizes[0]} strategies × {sizes[1]} iterations × {sizes[2]} seeds × {sizes[3]} micrographs")
    print(f"compare: {comparing:.1f} s, {comparing / reading:.1f} times reading the files ({reading:.1f} s)")
    print(f"peak memory {peak:.2f} GiB; report.html: {page / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
