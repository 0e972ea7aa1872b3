"""The protocol's counts: as the config says them, and run for a night rather than for hours."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import make_dataset
from tiers import second_tier

from cryoquery import compare
from cryoquery.experiment.config import load_config
from cryoquery.experiment.executors import run_experiment
from cryoquery.experiment.verify import verify

CONFIGS = Path(__file__).parents[2] / "configs"
DIFFERENT = {"dataset", "out", "image_size", "model", "training", "device", "slurm"}


def test_small_images_change_nothing_else_of_the_protocol() -> None:
    protocol, small = (load_config(CONFIGS / f"{n}.toml") for n in ("protocol", "protocol_small_images"))
    assert protocol.model_dump(exclude=DIFFERENT) == small.model_dump(exclude=DIFFERENT)
    training = protocol.training.model_dump(exclude={"batch_size"})
    assert small.training.model_dump(exclude={"batch_size"}) == training


@second_tier
def test_all_images_of_the_protocol_in_fewer_steps(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", {"train": 5172, "val": 534, "test": 486}, size=16)
    config = load_config(
        CONFIGS / "protocol_small_images.toml",
        dataset=str(dataset.path),
        out=str(tmp_path / "e"),
        strategies=["diversity", "random"],
        schedule={"counts": [517, 5172]},
        baselines=["full_supervision"],
        seeds=[42],
        training={"initial_epochs": 1, "epochs": 1, "batch_size": 128},
        workers=1,
    )
    compare(run_experiment(config))
    assert verify(config.out).holds
    for name in ("diversity_sampling", "random_sampling"):
        last = config.out / name / "iteration_1" / "metrics.json"
        assert json.loads(last.read_text())["n_labeled_images"] == 5172
