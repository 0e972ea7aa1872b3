"""The benchmarks run at toy size; what they measure is asserted nowhere."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from label_project import SPAWN
from tiers import second_tier

from cryoquery import run_experiment
from cryoquery.config import parse
from cryoquery.data.dataset import open_dataset
from cryoquery.experiment.config import ExperimentConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOYS = {
    "selection": (
        "--candidates 40 --labeled 5 --features 4 --picks 6 --pool 300 --strategies hybrid clasp_pe",
        ("the same rows", "k-means", "hybrid", "clasp_pe"),
    ),
    "training": (
        "--base-channels 2 --size 32 --batch 2 --rounds 1 --images 4 --matmul 64",
        (
            "ratio of plain to ours",
            "TFLOP per image",
            "product of 64²",
            "an epoch of 4 images",
            "determinism",
        ),
    ),
    "scoring": (
        "--base-channels 2 --size 32 --images 4 --batch 2 --rounds 1",
        ("ratio of all signals to bare", "once more 0 images", "6 passes"),
    ),
    "memory": ("--pools 4 --size 32 --base-channels 2 --batch 2", ("4 images: peak", "ratio")),
    "reuse": (
        "--train 10 --size 16 --base-channels 2 --epochs 1 --seeds 1 --schedule 0.3 1.0 "
        "--config configs/real_micrographs.toml --planned 198 4 4",
        ("0 passes", "selections and weights: the same"),
    ),
    "interval_coverage": ("--quick", ("df by kurtosis (ours)", "pooled, mostly 1", "Welch")),
    "devices": (
        "--base-channels 2 --size 32 --images 8 --batch 4 --epochs 2",
        ("ratio of one to 2", "largest difference of weights"),
    ),
    "workers": (
        "--train 10 --size 32 --base-channels 2 --seeds 1",
        ("one on all cores", "times as long as two workers"),
    ),
    "label_pictures": (
        "--side 300 --items 40 --rounds 1",
        ("picture of 300², not cached", "times as long as cached", "queue of 40", "make a command take"),
    ),
    "precision": (
        "--micrographs 8 --base-channels 2 --seeds 1 --epochs 1 --fractions 0.5",
        ("seed 42", "last iteration: bf16 − fp32"),
    ),
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    spec.loader.exec_module(module)
    return module


# Processes that are started afresh print warnings of torch about what a CPU does not have.
@second_tier
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOYS)
def test_a_benchmark_runs_at_toy_size(
    name: str,
    forked: None,
    forked_devices: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, expected = TOYS[name]
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.chdir(BENCHMARKS.parent)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    benchmark = load(name)
    monkeypatch.setattr(benchmark, "CONTEXT", SPAWN, raising=False)
    benchmark.main(arguments.split())
    printed = capsys.readouterr().out
    for text in expected:
        assert text in printed


# Strategies on the standing pools


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load("pools")


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load("labels_needed")


@pytest.fixture
def acquisition(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load("acquisition")


def test_simulated_pools_have_the_same_balanced_micrographs_held_out(pools: ModuleType) -> None:
    held_out = []
    for name in ("sim_balanced", "sim_imbalanced", "sim_junk", "sim_redundant"):
        micrographs = pools.SIMULATED[name]()
        keys = [m.key for m in micrographs]
        assert len(set(keys)) == len(keys)
        held_out.append({m.key: m.split for m in micrographs if m.split != "train"})
        for split in ("val", "test"):
            groups = Counter(m.group for m in micrographs if m.split == split)
            assert len(groups) == 5
            assert len(set(groups.values())) == 1
    assert all(found == held_out[0] for found in held_out)


def test_no_two_micrographs_of_a_simulated_pool_show_the_same_place_but_near_duplicates(
    pools: ModuleType,
) -> None:
    for name in ("sim_junk", "sim_redundant"):
        micrographs = [m for m in pools.SIMULATED[name]() if len(m.particles)]
        first = Counter((m.group, m.particles[0, :2].tobytes()) for m in micrographs)
        assert set(first.values()) == {1}
        views = Counter(m.field_of_view for m in micrographs if m.field_of_view)
        assert all(n == 8 for n in views.values())
        assert bool(views) == (name == "sim_redundant")


@second_tier
def test_one_group_has_ten_times_the_images_of_each_other(
    pools: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pools.main([str(tmp_path), "--only", "sim_imbalanced"])
    assert "sim_imbalanced: 448 images to choose from" in capsys.readouterr().out
    dataset = open_dataset(tmp_path / "sim_imbalanced")
    counts = {group: len(rows) for group, rows in pools.fields_by_group(dataset, "train").items()}
    assert counts.pop("apoferritin") == 320
    assert set(counts.values()) == {32}
    assert (tmp_path / "sim_imbalanced.png").stat().st_size > 10_000


def test_fields_of_a_pool_are_copied_bit_by_bit(pools: ModuleType, tmp_path: Path) -> None:
    whole = load("measuring").write_dataset(tmp_path / "whole", {"train": 6, "test": 2}, 32)
    part = pools.keep(whole, [1, 3, 7], tmp_path / "part")
    assert np.array_equal(part.images, whole.images[[1, 3, 7]])
    assert np.array_equal(part.masks, whole.masks[[1, 3, 7]])
    assert part.n_particles([0, 1, 2]) == whole.n_particles([1, 3, 7])
    assert [record.split for record in part.records] == ["train", "train", "test"]
    assert pools.spread(whole, range(6), 4) == pools.spread(whole, range(6), 4)


def test_the_labels_that_a_score_needs_are_interpolated_over_their_logarithm(
    labels: ModuleType,
) -> None:
    images, particles, f1 = np.array([10.0, 20, 40]), np.array([100.0, 200, 800]), np.array([0.5, 0.7, 0.6])
    halfway = labels.needed(images, particles, f1, 0.6)
    assert halfway.images == pytest.approx(math.sqrt(200))
    assert halfway.particles == pytest.approx(100 * math.sqrt(2))
    assert labels.needed(images, particles, f1, 0.4).images == 10
    assert math.isinf(labels.needed(images, particles, f1, 0.71).particles)


def test_a_curve_that_needs_half_the_particles_needs_them_twice_as_rarely(labels: ModuleType) -> None:
    images, f1 = np.array([10.0, 20, 40]), np.array([[0.5, 0.6, 0.7], [0.5, 0.62, 0.7]])
    many = labels.Curves(images, np.array([[100.0, 200, 400]] * 2), f1)
    few = labels.Curves(images, many.particles / 2, f1)
    assert labels.log_ratio(few, many, 0.65) == pytest.approx(math.log(2))
    assert labels.log_ratio(many, few, 0.65) == pytest.approx(-math.log(2))
    never = labels.Curves(images, many.particles, f1 / 2)
    assert labels.log_ratio(few, never, 0.65) == labels.MOST
    assert labels.log_ratio(never, never, 0.65) == 0
    # For the best of the other: 0.7, which takes it 400 particles and the early one 200.
    early = labels.Curves(images, many.particles, np.array([[0.5, 0.7, 0.65], [0.5, 0.7, 0.65]]))
    assert labels.log_ratio(early, many, None) == pytest.approx(math.log(2))
    assert labels.log_ratio(never, many, None) == -labels.MOST


def test_over_doublings_every_step_of_a_geometric_schedule_counts_the_same(acquisition: ModuleType) -> None:
    assert acquisition.aulc_by_doubling([0.1, 0.2, 0.4, 0.8], [0, 1, 0, 0]) == pytest.approx(1 / 3)


# Processes that are started afresh print warnings of torch about what a CPU does not have.
@second_tier
@pytest.mark.filterwarnings("ignore")
def test_strategies_are_compared_with_each_other_and_with_the_ceiling(
    acquisition: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("measuring").write_dataset(tmp_path / "pool", {"train": 14, "val": 4, "test": 4}, 32)
    values = {
        "dataset": tmp_path / "pool",
        "out": tmp_path / "benchmark_toy",
        "strategies": ["random", "stratified_random", "entropy"],
        "baselines": ["full_supervision"],
        "seeds": [1, 2],
        "report_split": "test",
        "keep_models": "none",
        "workers": 1,
        "schedule": {"counts": [2, 4, 8]},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 1, "fine_tune": False},
    }
    folder = str(run_experiment(parse(ExperimentConfig, values, "toy")))
    acquisition.main([folder, "--oracle", "2", "--seeds", "1", "2"])
    assert "seed 2, 8 labeled" in capsys.readouterr().out
    acquisition.main([folder, "--out", str(tmp_path / "table.md")])
    text = (tmp_path / "table.md").read_text()
    for expected in (
        "## toy",
        "| Entropy | Stratified Random |",
        "Greedy Oracle",
        "times fewer",
        "by chance",
    ):
        assert expected in text
    acquisition.main([folder, folder])
    assert "| gain in area over the share, against Random | Entropy | Stratified" in capsys.readouterr().out
    acquisition.main([folder, "--time"])
    assert "seconds for a query of 2 of 14" in capsys.readouterr().out
