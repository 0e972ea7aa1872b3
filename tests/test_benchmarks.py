"""The benchmarks run at toy size; what they measure is asserted nowhere."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TOYS = {
    "selection": (
        "--candidates 40 --labeled 5 --features 4 --picks 6 --pool 300 --strategies hybrid",
        ("the same rows", "k-means", "hybrid"),
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
        ("picture of 300², not cached", "times as long as cached", "queue of 40", "make an act take"),
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
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOYS)
def test_a_benchmark_runs_at_toy_size(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, expected = TOYS[name]
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.chdir(BENCHMARKS.parent)
    load(name).main(arguments.split())
    printed = capsys.readouterr().out
    for text in expected:
        assert text in printed
