from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cryoquery import CombinedLoss
from cryoquery.errors import ConfigError


def reference(logits: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """The combined loss pixel by pixel, in float64, straight from the formulas."""
    focal = n = intersection = sum_p = sum_t = 0.0
    for z, t, v in zip(logits.ravel(), target.ravel(), valid.ravel(), strict=True):
        if not v:
            continue
        p = 1 / (1 + math.exp(-z))
        p_t, a_t = (p, 0.25) if t else (1 - p, 0.75)
        focal += a_t * (1 - p_t) ** 2 * -math.log(p_t)
        n, intersection, sum_p, sum_t = n + 1, intersection + p * t, sum_p + p, sum_t + t
    dice = 1 - 2 * intersection / (sum_p + sum_t) if sum_t else 0.0
    return 0.7 * focal / n + 0.3 * dice


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_against_the_formulas(density: float) -> None:
    rng = np.random.default_rng(1)
    logits, valid = rng.normal(0, 3, (2, 1, 6, 5)), rng.random((2, 1, 6, 5)) < 0.8
    target = rng.random((2, 1, 6, 5)) < density
    loss = CombinedLoss()(*(torch.from_numpy(a) for a in (logits, target, valid)))
    assert loss.item() == pytest.approx(reference(logits, target, valid), rel=1e-5)


def test_ignored_pixels_change_nothing() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 1, 8, 8), (torch.rand(1, 1, 8, 8) < 0.3).float()
    valid = torch.rand(1, 1, 8, 8) < 0.5
    spoiled = torch.where(valid, target, math.nan)
    wild = torch.where(valid, logits, 50.0)
    loss = CombinedLoss()
    assert loss(wild, spoiled, valid) == loss(logits, target, valid)


def test_perfect_is_zero_and_wrong_is_not() -> None:
    target = (torch.rand(1, 1, 16, 16) < 0.3).float()
    loss = CombinedLoss()
    assert loss(40 * (2 * target - 1), target).item() == pytest.approx(0, abs=1e-6)
    assert loss(-40 * (2 * target - 1), target).item() > 1


def test_an_empty_batch_teaches_background() -> None:
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = CombinedLoss()(logits, torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad > 0).all()


def test_nothing_valid_is_zero_with_finite_gradient() -> None:
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = CombinedLoss()(logits, torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "wrong", [{"focal_weight": -1}, {"focal_weight": 0, "dice_weight": 0}, {"alpha": 2}, {"gamma": -1}]
)
def test_wrong_weights_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CombinedLoss(**wrong)
