from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset

from cryoquery.active import missing_labels
from cryoquery.active.missing_labels import training_masks
from cryoquery.active.oracles import HumanOracle, SimulatedOracle
from cryoquery.active.run import Context
from cryoquery.data.dataset import BACKGROUND, IGNORE, PARTICLE, Dataset
from cryoquery.network.checkpoint import save_model
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import AttentionUNet, ModelConfig
from cryoquery.network.optimize import TrainingConfig
from cryoquery.storage.cache import Cache


class Seer(AttentionUNet):
    """Sees a particle, with probability 0.95, where an image is dark."""

    def forward_with_features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.where(images < 0, 2.944, -3.0), torch.zeros(len(images), 1, 1, 1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "d", {"train": 5, "val": 1})


@pytest.fixture
def context(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    model = ModelConfig(base_channels=2)
    save_model(tmp_path / "start.pt", model.build(), model, {})
    monkeypatch.setattr(missing_labels, "load_model", lambda path: Seer(base_channels=2).eval())
    training = TrainingConfig(doubtful_background=0.9)
    fabric = DeviceConfig(accelerator="cpu", precision="32-true").fabric()
    cache = Cache(tmp_path / "cache")
    return Context(dataset, model, training, fabric, ("val",), cache, start=tmp_path / "start.pt")


LABELED = np.array([1, 3])


def test_what_the_start_sees_and_nobody_labeled_is_no_background(context: Context, dataset: Dataset) -> None:
    oracle = SimulatedOracle(dataset)
    oracle.ask(LABELED)
    masks = training_masks(context, oracle, LABELED)
    labeled, dark = dataset.masks[LABELED], dataset.images[LABELED] < 128
    found = masks.read(LABELED)
    assert np.array_equal(found == PARTICLE, labeled == PARTICLE), "labels stand"
    assert np.array_equal(found == IGNORE, (labeled == IGNORE) | (dark & (labeled == BACKGROUND)))
    assert np.array_equal(masks.of(3), found[1])
    assert np.array_equal(masks.of(5), dataset.masks[5]), "held-out labels stand"


@pytest.mark.parametrize("without", ["start", "doubt", "sureness"])
def test_without_a_reason_masks_stay(context: Context, dataset: Dataset, without: str) -> None:
    oracle = SimulatedOracle(dataset)
    oracle.ask(LABELED)
    least = {"start": 0.9, "doubt": 0.0, "sureness": 0.96}[without]
    changed = replace(context, training=TrainingConfig(doubtful_background=least))
    changed = replace(changed, start=None) if without == "start" else changed
    assert np.array_equal(training_masks(changed, oracle, LABELED).read(LABELED), dataset.masks[LABELED])


def test_who_saw_suggestions_and_said_no_is_believed(context: Context, dataset: Dataset) -> None:
    oracle = HumanOracle(dataset, LABELED, reviewed=[3])
    oracle.ask(LABELED)
    masks = training_masks(context, oracle, LABELED)
    assert np.array_equal(masks.of(3), dataset.masks[3])
    assert not np.array_equal(masks.of(1), dataset.masks[1])
