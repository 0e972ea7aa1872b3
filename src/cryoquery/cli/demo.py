"""A whole experiment in minutes on two cores, on micrographs made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from cryoquery.active.progress import Progress
from cryoquery.cli.console import print_answer, say
from cryoquery.config import parse
from cryoquery.experiment.config import ExperimentConfig
from cryoquery.experiment.executors import run_experiment
from cryoquery.report import compare
from cryoquery.simulate import PROTEINS, Junk, Protein, SimulationConfig, simulate_dataset

SIMULATION = SimulationConfig(
    n_micrographs=80,
    height_px=96,
    width_px=96,
    pixel_size=7.0,
    seed=1,
    proteins=tuple(Protein(**(p.model_dump() | {"dose": 2 * p.dose})) for p in PROTEINS.values()),
    junk=Junk(crystals=0.15, aggregates=0.1, fragments=1.0, carbon=0.05, hot_pixels=0.5),
)
"""Six proteins, some easy, some noisy, some rare; small micrographs, so twice the usual dose."""


def demo_config(out: Path) -> ExperimentConfig:
    """The protocol in small, with stratified random sampling: fewer and smaller steps, one seed."""
    values: dict[str, Any] = {
        "dataset": out / "dataset",
        "out": out / "experiment",
        "strategies": [*ExperimentConfig.model_fields["strategies"].default, "stratified_random"],
        "seeds": [42],
        "schedule": {"fractions": [0.1, 0.2, 0.3, 0.5, 0.75, 1.0]},
        "model": {"base_channels": 8},
    }
    return parse(ExperimentConfig, values, "demo")


def prepare_demo(out: Path) -> ExperimentConfig:
    """Simulate the demo's micrographs, unless an earlier demo left them, and return its experiment."""
    config = demo_config(out)
    if not config.dataset.exists():
        simulate_dataset(config.dataset, SIMULATION)
    return config


def finish_demo(config: ExperimentConfig, progress: Progress, console: Console) -> None:
    """Run what is left of the experiment, compare, and say what came out."""
    print_answer(compare(run_experiment(config, progress)), console)
    say(console, "One seed and a small simulated pool: a tour of the tool, not a result.")
