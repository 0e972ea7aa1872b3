"""Controls for the length of trainings: with all labels a strategy's steps, and equal steps in iterations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import make_dataset

from cryoquery import compare, run_experiment
from cryoquery.active.progress import Event, ImagesPassed
from cryoquery.errors import CryoqueryError
from cryoquery.experiment.config import EQUAL_STEPS, ExperimentConfig, plan_runs, total_steps
from cryoquery.experiment.plan import make_plan
from cryoquery.experiment.verify import verify

COUNTS = (2, 4, 8)
TOTAL = 4 * 1 + 2 * 2 + 2 * 4
"""Optimizer steps of four epochs of one batch of two images, and of two epochs of two and of four batches."""


def config(folder: Path, **changes: object) -> ExperimentConfig:
    values: dict[str, object] = {
        "dataset": folder / "data",
        "out": folder / "e",
        "strategies": ("entropy",),
        "baselines": ("full_supervision", EQUAL_STEPS, "progressive_supervised"),
        "seeds": (1, 2),
        "schedule": {"counts": COUNTS},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 4, "epochs": 2, "batch_size": 2},
        "workers": 1,
    }
    return ExperimentConfig(**(values | changes))


@pytest.mark.parametrize("steps", ["by_epochs", "equal"])
def test_as_many_steps_are_taken_as_are_planned(tmp_path: Path, steps: str) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    equal = config(tmp_path, schedule={"counts": COUNTS, "steps": steps})
    assert total_steps(equal, COUNTS) == TOTAL
    runs = {run.name: run for run in plan_runs(equal, 8)}
    assert runs[EQUAL_STEPS].n_steps == (TOTAL,)
    assert runs["full_supervision"].n_steps is None
    even = (5, 5, 6) if steps == "equal" else None
    assert runs["entropy_sampling"].n_steps == runs["progressive_supervised"].n_steps == even
    trained = 0

    def count(event: Event) -> None:
        nonlocal trained
        if isinstance(event, ImagesPassed) and event.trained:
            trained += event.n_images

    out = run_experiment(equal, count)
    plan = make_plan(equal)
    assert trained == plan.cost.n_training
    whole = math.ceil(TOTAL / 4) * 8  # epochs of four batches
    (cost,) = {sum(planned.cost.n_training for planned in plan.runs if planned.run.name == EQUAL_STEPS)}
    assert cost == 2 * whole
    assert verify(out).holds
    page = (compare(out) / "report.html").read_text()
    assert "Full Supervision, Equal Steps" in page
    assert f"With all labels a strategy has taken {TOTAL} optimizer steps" in page
    assert ("More labels make more optimizer steps" in page) == (steps == "by_epochs")
    computing = json.loads((out / "comparison_results" / "efficiency_analysis.json").read_text())["computing"]
    assert computing["n_training_passes"] == trained


def test_without_the_control_the_report_names_it(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    out = run_experiment(config(tmp_path, baselines=("full_supervision",), seeds=(1,)))
    assert (
        "The baseline full_supervision_equal_steps would tell" in (compare(out) / "report.html").read_text()
    )


def test_another_way_to_count_steps_is_another_experiment(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", {"train": 8, "val": 2})
    few = {"baselines": (), "seeds": (1,)}
    run_experiment(config(tmp_path, **few))
    with pytest.raises(CryoqueryError, match="schedule"):
        run_experiment(config(tmp_path, schedule={"counts": COUNTS, "steps": "equal"}, **few))
