from __future__ import annotations

import numpy as np
from conftest import disc_mask
from scipy.ndimage import gaussian_filter

from cryoquery.picking.contamination import contaminated


def micrograph(rng: np.random.Generator, particle_px: float = 18) -> tuple[np.ndarray, np.ndarray]:
    """Noise of standard deviation 1 with dark particles, and where they are."""
    centers = rng.uniform(10, 310, (120, 2))
    image = rng.normal(0, 1, (320, 320)) - 0.8 * disc_mask((320, 320), centers, particle_px)
    return image.astype(np.float32), centers


def test_clean_ice_with_particles_is_left_alone() -> None:
    for seed in range(3):
        image, _ = micrograph(np.random.default_rng(seed))
        assert contaminated(image, 18).mean() < 0.01


def test_carbon_is_found_by_its_texture() -> None:
    rng = np.random.default_rng(1)
    image, _ = micrograph(rng)
    carbon = np.add.outer(np.arange(320), np.arange(320)) > 420
    image[carbon] *= 1.4
    found = contaminated(image, 18)
    assert found[carbon].mean() > 0.8
    assert found[~carbon].mean() < 0.15


def test_ice_and_aggregates_are_found_by_their_darkness() -> None:
    rng = np.random.default_rng(2)
    image, _ = micrograph(rng)
    blob = disc_mask((320, 320), np.array([[90.0, 200.0]]), 70).astype(bool)
    image[blob] -= 2
    found = contaminated(image, 18)
    assert found[blob].mean() > 0.8
    assert found[~blob].mean() < 0.06


def test_a_single_dark_particle_is_no_contamination() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1, (320, 320)).astype(np.float32)
    image -= 3 * gaussian_filter(disc_mask((320, 320), np.array([[160.0, 160.0]]), 18).astype(np.float32), 1)
    assert not contaminated(image, 18).any()


def test_a_constant_image_is_clean() -> None:
    assert not contaminated(np.zeros((64, 64), np.float32), 18).any()
