"""Two processes on the CPU that share every batch, through gloo."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_dataset
from lightning_fabric import Fabric
from tiers import second_tier

from cryoquery.active.oracles import SimulatedOracle
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.network import loader as feed
from cryoquery.network.device import DeviceConfig
from cryoquery.network.distributed import launch, total_over_processes
from cryoquery.network.losses import CombinedLoss
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig, TrainingStep, optimize
from cryoquery.network.predict import Predictor
from cryoquery.network.train import fit
from cryoquery.picking.evaluate import evaluate

MODEL = ModelConfig(base_channels=4)
FABRIC = DeviceConfig(precision="32-true").fabric()

# The processes are started afresh, and torch warns there of what a CPU does not have.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 17, "val": 6})


def training(dataset: Dataset, **changes: Any) -> Training:
    oracle = SimulatedOracle(dataset)
    oracle.ask(np.arange(17))
    config = TrainingConfig(**{"initial_epochs": 2, "batch_size": 8} | changes)
    labeled = LabeledImages(Pool.of(dataset), np.arange(17), oracle.masks)
    return Training(initial_weights(MODEL, 0), MODEL, labeled, config, True, 3)


def watch_what_is_read(seen: list[int]) -> None:
    load = feed.BatchLoader._load

    def record(self: feed.BatchLoader, positions: np.ndarray) -> Any:
        seen.extend(positions.tolist())
        return load(self, positions)

    feed.BatchLoader._load = record


def order_and_weights(fabric: Fabric, path: Path) -> tuple[list[list[int]], list[bool]]:
    """Of every process the images it read, and whether its weights are those of the first."""
    seen: list[int] = []
    watch_what_is_read(seen)
    network = optimize(training(open_dataset(path)), fabric, lambda step: None, total=total_over_processes)
    padded = torch.tensor(seen + [-1] * (100 - len(seen)))
    order = [[i for i in row.tolist() if i >= 0] for row in fabric.all_gather(padded)]
    weights = torch.cat([p.detach().flatten() for p in network.parameters()])
    return order, [torch.equal(row, weights) for row in fabric.all_gather(weights)]


@second_tier
def test_ranks_end_with_equal_weights_and_read_the_order_of_one_process(dataset: Dataset) -> None:
    order, equal = launch(partial(order_and_weights, path=dataset.path), 2, FABRIC)
    assert equal == [True, True]
    expected: list[list[int]] = [[], []]
    for _, batches in zip(range(2), training(dataset).epochs(), strict=False):
        for batch in batches:
            halves = np.array_split(batch.positions, 2)
            for rank in range(2):
                expected[rank].extend(halves[rank].tolist())
    assert order == expected
    assert sorted(order[0] + order[1]) == sorted(list(range(17)) * 2)


def gradient_of_the_whole_batch(fabric: Fabric) -> tuple[float, float]:
    """The mean over processes of their gradients, as DDP takes it, beside that of one process."""
    rng = np.random.default_rng(0)
    x, target, valid = (torch.from_numpy(rng.random((5, 4, 4))) for _ in range(3))
    loss = CombinedLoss()
    gradients = []
    for rows, total in (
        (np.array_split(np.arange(5), 2)[fabric.global_rank], total_over_processes),
        (..., None),
    ):
        w = torch.tensor(0.7, requires_grad=True)
        loss(w * x[rows].float(), target[rows] > 0.6, valid[rows] > 0.2, total).backward()
        gradients.append(w.grad)
    return float(fabric.all_gather(gradients[0]).mean()), float(gradients[1])


def test_the_loss_is_that_of_the_whole_batch(forked_devices: None) -> None:
    together, alone = launch(gradient_of_the_whole_batch, 2, FABRIC)
    assert together == pytest.approx(alone, rel=1e-5)


@second_tier
def test_two_processes_learn_as_well_as_one(forked_devices: None, dataset: Dataset) -> None:
    scores, steps = [], []
    for n in (1, 2):
        seen: list[TrainingStep] = []
        network = fit(training(dataset, initial_epochs=40), FABRIC, seen.append, DeviceConfig(n_devices=n))
        scores.append(evaluate(Predictor(network, FABRIC), dataset, "val").scores["f1"])
        steps.append([(step.epoch, step.n_images) for step in seen])
    assert min(scores) > 0.8
    assert steps[0] == steps[1]


def test_a_small_batch_is_not_spread_over_more_processes_than_it_has_images(dataset: Dataset) -> None:
    one = training(dataset, batch_size=1)
    network = fit(one, FABRIC, device=DeviceConfig(n_devices=2))
    alone = fit(one, FABRIC)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alone.parameters(), strict=True))
