"""A whole experiment in minutes on two cores, on micrographs made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from cryoquery.active.progress import Progress
from cryoquery.cli.console import say
from cryoquery.config import parse
from cryoquery.data.dataset import open_dataset
from cryoquery.experiment.config import ExperimentConfig
from cryoquery.experiment.executors import run_experiment
from cryoquery.report import compare
from cryoquery.report.runs import label
from cryoquery.simulate import PROTEINS, Junk, Protein, SimulationConfig, simulate_dataset
from cryoquery.storage.atomic import read_json

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
    folder = compare(run_experiment(config, progress))
    efficiency = read_json(folder / "efficiency_analysis.json")
    console.print(f"\nThe three numbers that matter (pixel F1 on the {efficiency['split']} micrographs):")
    for line in three_numbers(efficiency, config):
        say(console, f"  {line}")
    console.print("One seed and a small simulated pool: a tour of the tool, not a result.")
    say(console, f"\nreport: {folder / 'report.html'}")


def three_numbers(efficiency: dict[str, Any], config: ExperimentConfig) -> list[str]:
    """Full supervision, half the labels, and how many labels are enough, each beside random."""
    runs = efficiency["runs"]
    n_train = len(open_dataset(config.dataset).rows("train"))
    seed = str(config.seeds[0])
    sampled = {name: run for name, run in runs.items() if name.endswith("_sampling")}
    best = max(sampled, key=lambda name: sampled[name]["over_seeds"]["f1_at_50"]["mean"])

    def at_half(name: str) -> str:
        return f"{label(name)} {sampled[name]['over_seeds']['f1_at_50']['mean']:.3f}"

    def reached(name: str) -> int | None:
        found = sampled[name]["by_seed"][seed]["to_reach_full_supervision"]
        return int(found["n_labeled_images"]) if found else None

    def enough(name: str) -> str:
        return f"{label(name)} {reached(name) or 'not reached'}"

    soonest = min(sampled, key=lambda name: reached(name) or n_train + 1)
    return [
        f"1. full supervision, all {n_train} images labeled: {efficiency['full_supervision_f1'][seed]:.3f}",
        f"2. at 50 % of the labels: {at_half(best)} (the best), {at_half('random_sampling')}",
        f"3. images labeled to come within 0.01 of full supervision: {enough(soonest)} (the first), "
        f"{enough('random_sampling')}",
    ]
