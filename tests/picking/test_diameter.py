from __future__ import annotations

import numpy as np
import pytest
from conftest import disc_mask

from cryoquery.errors import DataError
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.predict import Predictor
from cryoquery.picking.diameter import BLOBS, DiameterScore, draw_estimate, estimate_diameter, expected_skill
from cryoquery.picking.picker import Picker
from cryoquery.picking.threshold import PickingRecipe

SHAPE = (300, 300)
CANDIDATES = np.geomspace(12, 48, 13)


def micrograph(diameter: float, seed: int = 0) -> np.ndarray:
    """Dark discs that do not overlap, a tenth of the area, in noise."""
    rng = np.random.default_rng(seed)
    kept: list[np.ndarray] = []
    while len(kept) < 0.1 * SHAPE[0] * SHAPE[1] / (np.pi / 4 * diameter**2):
        center = rng.uniform(0, SHAPE)
        if all(np.linalg.norm(center - other) > diameter for other in kept):
            kept.append(center)
    noise = rng.normal(100, 10, SHAPE).astype(np.float32)
    return noise - 10 * disc_mask(SHAPE, np.array(kept), diameter).astype(np.float32)


def test_the_curve_is_read_off() -> None:
    """Of a score that knows the answer: the maximum, a second one, and what lies between candidates."""

    def fit(image: np.ndarray) -> float:
        size = 300 * 10 / len(image)
        return float(
            np.exp(-(np.log(size / 20) ** 2) / 0.02) + 0.9 * np.exp(-(np.log(size / 40) ** 2) / 0.02)
        )

    estimate = estimate_diameter([micrograph(20)], DiameterScore(10, fit), CANDIDATES)
    assert estimate.best_px == pytest.approx(20, rel=0.03)
    assert estimate.second_px == pytest.approx(40, rel=0.07)
    assert "or else" in str(estimate)
    assert draw_estimate(estimate, micrograph(20)).startswith(b"\x89PNG")


def test_a_network_is_asked_for_its_expected_skill() -> None:
    config = ModelConfig(base_channels=2)
    network = config.build()
    network.load_state_dict(initial_weights(config, 0))
    recipe = PickingRecipe(
        scale="particle", image_side=64, particle_px=8, particle_px_range=(8, 8), disc_fraction=1
    )
    picker = Picker(recipe, Predictor(network, DeviceConfig(accelerator="cpu").fabric()))
    estimate = estimate_diameter([micrograph(20)], expected_skill(picker), CANDIDATES[::4])
    assert ((estimate.curves >= 0) & (estimate.curves <= 1)).all()


def test_no_micrographs_are_an_error() -> None:
    with pytest.raises(DataError, match="no micrographs"):
        estimate_diameter([], BLOBS)
