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
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TOYS)
def test_a_benchmark_runs_at_toy_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = TOYS[name]
    load(name).main(arguments.split())
    printed = capsys.readouterr().out
    for text in expected:
        assert text in printed
