from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_dataset
from tiers import take, thorough

from cryoquery import load_config, run_experiment
from cryoquery.active.progress import Event, ImagesPassed, duration
from cryoquery.errors import ConfigError, DataError
from cryoquery.experiment.config import ExperimentConfig
from cryoquery.experiment.plan import make_plan, measure_speed
from cryoquery.network.checkpoint import save_model
from cryoquery.network.model import ModelConfig

PROTOCOL = Path(__file__).parents[2] / "configs" / "protocol.toml"


def test_the_cost_of_the_protocol() -> None:
    config = load_config(PROTOCOL)
    plan = make_plan(config)
    assert plan.n_train == 5172
    per_strategy = 517 * 20 + 10 * (1034 + 1551 + 2069 + 2586 + 3103 + 3620 + 4137 + 4655 + 5172)
    by_name = {(planned.run.name, planned.run.seed): planned.cost for planned in plan.runs}
    assert len(by_name) == 8 * 3
    for cost in by_name.values():
        assert cost.n_training + cost.n_saved_training in (per_strategy, 5172 * 20, 20 * 28444)
    assert by_name[("uncertainty_sampling", 42)].n_training == per_strategy
    assert by_name[("entropy_sampling", 42)].n_saved_training == 517 * 20
    assert by_name[("margin_sampling", 43)].n_training == 0
    assert by_name[("random_sampling", 42)].n_inference == 9 * (128 + 1024), "no pool is scored"
    assert by_name[("entropy_sampling", 42)].n_saved_inference == 517 + 128 + 4655, "iteration 0"
    assert by_name[("progressive_supervised", 42)].n_saved_training == 20 * (517 + 5172)


class Counting:
    """Counts what really passes the network."""

    def __init__(self) -> None:
        self.n_trained = self.n_predicted = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, ImagesPassed):
            self.n_trained += event.n_images * event.trained
            self.n_predicted += event.n_images * (not event.trained)


@thorough
@pytest.mark.parametrize(
    ("fine_tune", "doubt"), take([(True, 0.0), (False, 0.9)], [(True, 0.0), (False, 0.0), (False, 0.9)])
)
def test_the_plan_is_what_is_done(tmp_path: Path, fine_tune: bool, doubt: float) -> None:
    make_dataset(tmp_path / "data", {"train": 10, "val": 2, "test": 1})
    small, start = ModelConfig(base_channels=2), "random"
    if doubt:
        torch.manual_seed(0)  # strategies that choose the same by chance share a training, unplanned
        start = str(tmp_path / "start.pt")
        save_model(Path(start), small.build(), small, {})
    config = ExperimentConfig(
        dataset=tmp_path / "data",
        out=tmp_path / "e",
        strategies=("uncertainty", "margin", "core_set", "random"),
        seeds=(1, 2),
        schedule={"counts": (2, 5, 10)},
        model=small,
        start=start,
        training={
            "initial_epochs": 2,
            "epochs": 1,
            "fine_tune": fine_tune,
            "doubtful_background": doubt,
        },
        workers=1,
    )
    plan = make_plan(config)
    counting = Counting()
    run_experiment(config, counting)
    assert counting.n_trained == plan.cost.n_training
    assert counting.n_predicted == plan.cost.n_inference


def test_a_plan_by_fractions_needs_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset folder"):
        make_plan(ExperimentConfig(dataset=tmp_path / "nowhere"))


def test_a_plan_that_does_not_fit_the_dataset(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    config = load_config(PROTOCOL, dataset=tmp_path / "data", image_size=32)
    with pytest.raises(ConfigError, match="5172 images are to be labeled, the pool has 20"):
        make_plan(config)


def test_speed_is_measured(tmp_path: Path) -> None:
    config = ExperimentConfig(dataset=tmp_path, model={"base_channels": 2})
    small, large = (measure_speed(config, (side, side)) for side in (32, 256))
    assert 0 < small.inference < small.training
    assert large.training > small.training


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12, "12 s"), (600, "10 min"), (12_000, "3 h 20 min"), (1_000_000, "11.6 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
