from __future__ import annotations

import pytest
import torch

from cryoquery import AttentionUNet
from cryoquery.network.model import AttentionGate, ModelConfig, initial_weights


def test_parameter_count() -> None:
    assert sum(p.numel() for p in AttentionUNet().parameters()) == 31_393_901


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (2, 1, 48, 32), (1, 1, 64, 112)])
def test_logits_have_the_size_of_the_image(shape: tuple[int, ...]) -> None:
    network = AttentionUNet(base_channels=4).eval()
    logits, features = network.forward_with_features(torch.zeros(shape))
    assert logits.shape == shape
    assert features.shape == (shape[0], 64, shape[2] // 16, shape[3] // 16)


def test_logits_are_not_probabilities() -> None:
    network = AttentionUNet(base_channels=4).eval()
    torch.nn.init.constant_(network.head.bias, 5.0)
    assert network(torch.randn(1, 1, 32, 32)).max() > 1


@pytest.mark.parametrize("shape", [(1, 1, 40, 48), (1, 1, 48, 17), (1, 1, 0, 16)])
def test_other_sizes_are_refused_with_the_fitting_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 16; pad to"):
        AttentionUNet(base_channels=2)(torch.zeros(shape))


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 1, h, w\)"):
        AttentionUNet(base_channels=2)(torch.zeros(1, 3, 32, 32))


def test_gate_only_weakens() -> None:
    gate = AttentionGate(8).eval()
    x, signal = torch.randn(2, 8, 5, 7), torch.randn(2, 8, 5, 7)
    weight = gate(x, signal) / x
    assert ((weight >= 0) & (weight <= 1)).all()
    assert torch.allclose(weight, weight[:, :1].expand_as(weight), atol=1e-5)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    config = ModelConfig(base_channels=2)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = initial_weights(config, 3)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was touched"
    torch.manual_seed(8)
    again, other = initial_weights(config, 3), initial_weights(config, 4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
