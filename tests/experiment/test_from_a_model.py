from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_dataset

from cryoquery import load_model, run_experiment
from cryoquery.errors import ConfigError, DataError
from cryoquery.experiment.config import ExperimentConfig
from cryoquery.network.checkpoint import SHIPPED
from cryoquery.network.model import ModelConfig
from cryoquery.storage.atomic import sha256


def test_the_model_to_start_from_is_noted_and_must_stay() -> None:
    config = ExperimentConfig(dataset=Path("d"), start="general")
    assert config.start_sha256 == config.protocol()["start_sha256"] == sha256(SHIPPED["general"])
    assert ExperimentConfig(dataset=Path("d")).start_sha256 is None
    with pytest.raises(ConfigError, match="is another model than the one that the experiment began with"):
        ExperimentConfig(dataset=Path("d"), start="general", start_sha256="0" * 64)
    with pytest.raises(ConfigError, match="both say what to start from"):
        ExperimentConfig(dataset=Path("d"), start="general", pretraining={"steps": 1})
    with pytest.raises(DataError, match=r"none\.pt: no such model"):
        ExperimentConfig(dataset=Path("d"), start="none.pt")


def test_an_experiment_from_the_general_model(tmp_path: Path) -> None:
    """A step at a tiny rate leaves the weights where they were."""
    data = make_dataset(tmp_path / "data", {"train": 2, "test": 1})
    config = ExperimentConfig(
        dataset=data.path,
        out=tmp_path / "e",
        start="general",
        strategies=[],
        baselines=["full_supervision"],
        seeds=[1],
        schedule={"counts": [1, 2]},
        model=ModelConfig(base_channels=16),
        training={"initial_epochs": 1, "initial_learning_rate": 1e-9, "recalibrate": False},
        workers=1,
    )
    run_experiment(config)
    trained = load_model(tmp_path / "e" / "full_supervision" / "iteration_0" / "model.pt")
    for name, weight in load_model(SHIPPED["general"]).named_parameters():
        assert torch.allclose(trained.get_parameter(name), weight, atol=1e-6), name
