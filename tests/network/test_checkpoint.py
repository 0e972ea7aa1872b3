from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from cryoquery.errors import DataError
from cryoquery.network.checkpoint import load_model, read_model, save, save_model
from cryoquery.network.model import AttentionUNet, ModelConfig


def content(path: Path, channels: int = 2) -> dict[str, object]:
    save_model(path, AttentionUNet(base_channels=channels), ModelConfig(base_channels=channels), {})
    return dict(torch.load(path, weights_only=True))


def test_a_model_is_read_as_it_was_saved(tmp_path: Path) -> None:
    network = AttentionUNet(base_channels=2).eval()
    save_model(tmp_path / "m.pt", network, ModelConfig(base_channels=2), {})
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(load_model(tmp_path / "m.pt")(image), network(image))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "m.pt"
    saved = content(path)
    saved["weights"]["head.bias"][0] = value  # type: ignore[index]
    save(path, saved)
    with pytest.raises(DataError, match=r"m\.pt: some of its weights are not finite.*train it again"):
        read_model(path)


def test_weights_that_do_not_fit_are_refused_without_their_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    weights = content(path)["weights"]
    assert isinstance(weights, dict)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in AttentionUNet(base_channels=4096).state_dict().items()}
    hollow = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    for channels, wrong in (
        (4096, weights),
        (4096, hollow),
        (2, {**weights, "head.bias": torch.zeros(3)}),
        (2, {**weights, "more": torch.zeros(3)}),
        (2, dict(list(weights.items())[1:])),
        (10**9, weights),
        (2, {**weights, "head.bias": "text"}),
    ):
        save(path, {"model": {"base_channels": channels}, "made_by": {}, "weights": wrong})
        started = time.process_time()
        with pytest.raises(DataError, match=r"m\.pt: .*train it again"):
            read_model(path)
        assert time.process_time() - started < 5
