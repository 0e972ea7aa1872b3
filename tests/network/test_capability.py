"""The paths of a GPU, on a CPU that says it were one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset
from tiers import second_tier

from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.errors import ConfigError
from cryoquery.network import capability
from cryoquery.network.device import DeviceConfig
from cryoquery.network.loader import Batch, BatchLoader
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig
from cryoquery.network.train import fit

MODEL = ModelConfig(base_channels=4)


@pytest.fixture
def labeled(tmp_path: Path) -> LabeledImages:
    dataset = make_dataset(tmp_path / "d", {"train": 8, "val": 1})
    return LabeledImages(Pool.of(dataset), np.arange(8), lambda rows: dataset.masks[rows])


def has(monkeypatch: pytest.MonkeyPatch, n_gpus: int, *fast: str) -> None:
    monkeypatch.setattr(capability, "n_gpus", lambda: n_gpus)
    monkeypatch.setattr(capability, "has_fast_bfloat16", lambda accelerator: accelerator in fast)


@pytest.mark.parametrize(
    ("n_gpus", "fast", "asked", "chosen"),
    [
        (0, (), {}, ("cpu", "32-true")),
        (0, ("cpu",), {}, ("cpu", "bf16-mixed")),
        (1, (), {}, ("cuda", "32-true")),
        (1, ("cuda",), {}, ("cuda", "bf16-mixed")),
        (1, ("cuda",), {"accelerator": "cpu"}, ("cpu", "32-true")),
        (2, ("cuda",), {"n_devices": 2, "precision": "32-true"}, ("cuda", "32-true")),
    ],
)
def test_a_device_is_chosen_by_what_is_there(
    n_gpus: int,
    fast: tuple[str, ...],
    asked: dict[str, object],
    chosen: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has(monkeypatch, n_gpus, *fast)
    assert DeviceConfig(**asked).chosen() == chosen


@pytest.mark.parametrize(
    ("n_gpus", "asked", "said"),
    [
        (0, {"accelerator": "cuda"}, "no GPU that torch can use"),
        (1, {"n_devices": 2}, r"this machine has 1 GPU\(s\)"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(
    n_gpus: int, asked: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, n_gpus)
    with pytest.raises(ConfigError, match=said):
        DeviceConfig(**asked).chosen()


@pytest.mark.parametrize("room", [0.9, 1.1])
def test_images_stay_on_a_device_where_they_fit(
    room: float, labeled: LabeledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [Batch(np.array([3, 0]), np.array([5, 0])), Batch(np.array([7, 1, 2]), np.array([1, 2, 3]))]
    fabric = DeviceConfig(accelerator="cpu").fabric()
    read = list(BatchLoader(labeled, fabric)(batches))
    height, width = labeled.pool.image_shape
    free = int(room * 2 * len(labeled) * height * width / 0.4)
    monkeypatch.setattr(capability, "free_bytes", lambda device: free)
    loader = BatchLoader(labeled, fabric)
    assert (loader._resident is not None) == (room > 1)
    for (images, masks), (same_images, same_masks) in zip(read, loader(batches), strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(masks, same_masks)
    assert BatchLoader(labeled, fabric, resident=False)._resident is None


def test_a_network_that_shares_statistics_has_the_same_weights_and_predictions() -> None:
    network = MODEL.build()
    network.load_state_dict(initial_weights(MODEL, 0))
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = network.eval()(images)
        shared = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        assert torch.equal(shared.eval()(images), expected)
    weights = initial_weights(MODEL, 0)
    assert shared.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in shared.state_dict().items())


def last_loss(labeled: LabeledImages, device: DeviceConfig) -> float:
    losses: list[float] = []
    config = TrainingConfig(initial_epochs=3, batch_size=4)
    training = Training(initial_weights(MODEL, 0), MODEL, labeled, config, from_scratch=True, seed=0)
    fit(training, device.fabric(), lambda s: losses.append(s.loss) if s.loss else None, device)
    return losses[-1]


def test_bfloat16_learns_what_float32_does(labeled: LabeledImages) -> None:
    single = last_loss(labeled, DeviceConfig(accelerator="cpu", precision="32-true"))
    half = last_loss(labeled, DeviceConfig(accelerator="cpu", precision="bf16-mixed"))
    assert half == pytest.approx(single, rel=0.05)


@second_tier
def test_a_traced_network_learns_what_the_plain_one_does(
    labeled: LabeledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = DeviceConfig(accelerator="cpu", precision="32-true")
    expected = last_loss(labeled, plain)
    # Traces as torch.compile does, without the minutes of a C++ compiler.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled = plain.model_copy(update={"compile": True})
    assert last_loss(labeled, compiled) == pytest.approx(expected, rel=0.02)
