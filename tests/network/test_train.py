from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset

from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import LabeledImages, Pool, valid_pixels
from cryoquery.errors import CryoqueryError
from cryoquery.network.device import DeviceConfig
from cryoquery.network.loader import apply_symmetries
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig, TrainingStep
from cryoquery.network.predict import Predictor
from cryoquery.network.train import fit
from cryoquery.picking.evaluate import evaluate

MODEL = ModelConfig(base_channels=4)
FABRIC = DeviceConfig(precision="32-true").fabric()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 17, "val": 6})


def labeled(dataset: Dataset, n: int) -> LabeledImages:
    return LabeledImages(Pool.of(dataset), np.arange(n), lambda indices: dataset.masks[indices])


def train(
    data: LabeledImages, seed: int = 0, from_scratch: bool = True, **changes: object
) -> torch.nn.Module:
    config = TrainingConfig(**{"initial_epochs": 2, "epochs": 1, "batch_size": 8} | changes)
    return fit(Training(initial_weights(MODEL, 0), MODEL, data, config, from_scratch, seed), FABRIC)


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_it_learns(dataset: Dataset) -> None:
    network = train(labeled(dataset, 17), initial_epochs=40)
    assert evaluate(Predictor(network, FABRIC), dataset, "val").scores["f1"] > 0.8


def test_the_same_arguments_give_the_same_weights(dataset: Dataset) -> None:
    data = labeled(dataset, 9)
    torch.manual_seed(1)
    first = train(data)
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 (what is tested: the global generators have no say)
    assert equal(first, train(data))
    assert not equal(first, train(data, seed=1))


def test_augmentation_and_learning_rate_matter(dataset: Dataset) -> None:
    data = labeled(dataset, 9)
    assert not equal(train(data), train(data, augment=False))
    assert not equal(train(data, from_scratch=False, epochs=2), train(data))


@pytest.mark.parametrize("change", [{"distort": True}, {"decay": "cosine"}, {"averaging": 0.9}])
def test_each_refinement_changes_the_weights(dataset: Dataset, change: dict[str, object]) -> None:
    data = labeled(dataset, 9)
    assert not equal(train(data, recalibrate=False), train(data, recalibrate=False, **change))


def test_the_learning_rate_falls_to_nothing() -> None:
    def rates(decay: str) -> list[float]:
        config = TrainingConfig(initial_learning_rate=0.01, decay=decay)
        training = Training({}, MODEL, labeled=None, config=config, from_scratch=True, seed=0)  # type: ignore[arg-type]
        return [training.rate_at(progress) for progress in (0.0, 0.5, 1.0)]

    assert rates("none") == [0.01, 0.01, 0.01]
    assert rates("cosine") == pytest.approx([0.01, 0.005, 0.0])


def test_no_image_is_dropped_and_batches_are_even(dataset: Dataset) -> None:
    steps: list[TrainingStep] = []
    config = TrainingConfig(initial_epochs=3, batch_size=16)
    data = labeled(dataset, 17)
    fit(Training(initial_weights(MODEL, 0), MODEL, data, config, True, 0), FABRIC, steps.append)
    assert [step.n_images for step in steps] == [9, 8] * 3
    assert [step.loss is not None for step in steps] == [False, True] * 3


def test_few_images_get_more_epochs_where_asked() -> None:
    config = TrainingConfig(initial_epochs=20, epochs=10, batch_size=16, min_steps=300)
    assert config.n_epochs(16, from_scratch=True) == 300
    assert config.n_epochs(160, from_scratch=True) == 30
    assert config.n_epochs(5172, from_scratch=False) == 10


def test_recalibration_touches_no_weight_but_helps_short_trainings(dataset: Dataset) -> None:
    data = labeled(dataset, 17)
    plain, calibrated = (train(data, initial_epochs=8, recalibrate=on) for on in (False, True))
    for name, value in plain.named_parameters():
        assert torch.equal(value, calibrated.get_parameter(name))
    scores = [evaluate(Predictor(n, FABRIC), dataset, "val").scores["f1"] for n in (plain, calibrated)]
    assert scores[1] > scores[0]


def test_recalibration_mixes_what_lies_apart(tmp_path: Path) -> None:
    """Images sorted by brightness: statistics of sorted batches would miss the variance between them."""
    dataset = make_dataset(tmp_path / "d", {"train": 16, "val": 1})
    levels = np.where(np.arange(16)[:, None, None] < 8, 60, 200).astype(np.uint8).repeat(32, 1).repeat(32, 2)
    pool = replace(Pool.of(dataset), levels=levels)
    network = train(LabeledImages(pool, np.arange(16), lambda i: dataset.masks[i]), batch_size=8)
    first = network.down[0][0]
    with torch.no_grad():
        images = (torch.from_numpy(levels)[:, None].float() - 128) / 32
        expected = first(images).var(dim=(0, 2, 3), unbiased=True)
    assert torch.allclose(network.down[0][1].running_var, expected, rtol=0.3)


def test_a_loss_that_is_not_finite_stops_the_training(dataset: Dataset) -> None:
    start = initial_weights(MODEL, 0)
    start["head.bias"] = torch.full_like(start["head.bias"], float("nan"))
    with pytest.raises(CryoqueryError, match=r"loss became nan in epoch 1; lower the learning rate"):
        fit(Training(start, MODEL, labeled(dataset, 4), TrainingConfig(), True, 0), FABRIC)


def test_the_eight_symmetries() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3).repeat(8, 1, 1, 1)
    turned = apply_symmetries(image, torch.arange(8))
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8
    assert torch.equal(turned[0], image[0])
    oblong = torch.arange(6.0).reshape(1, 1, 2, 3).repeat(8, 1, 1, 1)
    assert len({tuple(t.flatten().tolist()) for t in apply_symmetries(oblong, torch.arange(8))}) == 4


def test_images_and_masks_turn_together() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(5, 1, 8, 8)))
    symmetries = torch.from_numpy(rng.integers(8, size=5))
    assert torch.equal(
        apply_symmetries((image > 0).to(torch.uint8), symmetries),
        (apply_symmetries(image, symmetries) > 0).to(torch.uint8),
    )


def test_padding_does_not_reach_the_weights(tmp_path: Path) -> None:
    """Two data sets that differ in their padding alone train to the same weights."""
    padded = make_dataset(tmp_path / "a", {"train": 5, "val": 1}, size=32, content=(32, 24))
    masks = np.asarray(padded.masks)
    assert (masks[:, :, 24:] == 255).all()
    garbage = masks.copy()

    def spoiled(indices: np.ndarray) -> np.ndarray:
        garbage[:, :, 24:] = 255
        return garbage[indices]

    pool = Pool.of(padded)
    data = LabeledImages(pool, np.arange(5), spoiled)
    assert equal(train(data), train(LabeledImages(pool, np.arange(5), lambda i: padded.masks[i])))


def test_valid_pixels() -> None:
    valid = valid_pixels(np.array([[2, 3], [4, 4]]), 4, 4)
    assert valid.sum(axis=(1, 2)).tolist() == [6, 16]
    assert valid[0, :2, :3].all()


class StopError(Exception):
    pass


@pytest.mark.parametrize("at", [3, 7, 11])
def test_an_interrupted_training_goes_on_to_the_same_bits(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr("cryoquery.network.optimize.CHECKPOINT_SECONDS", 0.0)
    config = TrainingConfig(initial_epochs=4, batch_size=8, distort=True, decay="cosine", averaging=0.9)
    training = Training(initial_weights(MODEL, 0), MODEL, labeled(dataset, 17), config, True, 0)
    seen: list[TrainingStep] = []

    def stop(step: TrainingStep) -> None:
        seen.append(step)
        if len(seen) == at:
            raise StopError

    with pytest.raises(StopError):
        fit(training, FABRIC, stop, checkpoint=tmp_path / "checkpoint")
    after: list[TrainingStep] = []
    resumed = fit(training, FABRIC, after.append, checkpoint=tmp_path / "checkpoint")
    assert after[0].epoch == (at - 1) // 3, "the epoch that was broken off is done again"
    assert equal(resumed, fit(training, FABRIC))


def test_a_damaged_checkpoint_is_ignored(dataset: Dataset, tmp_path: Path) -> None:
    training = Training(initial_weights(MODEL, 0), MODEL, labeled(dataset, 9), TrainingConfig(), True, 0)
    (tmp_path / "checkpoint").write_bytes(b"half")
    assert equal(fit(training, FABRIC, checkpoint=tmp_path / "checkpoint"), fit(training, FABRIC))
