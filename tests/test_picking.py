from __future__ import annotations

import numpy as np
import pytest
from conftest import disc_mask

from cryoquery.metrics import match_particles
from cryoquery.picking import find_particles


def test_separate_discs_are_found_to_half_a_pixel() -> None:
    truth = np.array([[20.0, 20.0], [20.0, 60.5], [57.3, 33.8]])
    picks = find_particles(disc_mask((80, 80), truth, 18).astype(float), 18)
    found = match_particles(picks.centers_yx, truth, 1.0)
    assert found.f1 == 1.0
    assert found.distances_px.max() < 0.8


@pytest.mark.parametrize("distance", [18, 15, 13])
def test_touching_and_overlapping_discs_stay_two(distance: float) -> None:
    truth = np.array([[30.0, 30.0], [30.0, 30.0 + distance]])
    picks = find_particles(disc_mask((64, 80), truth, 18).astype(float), 18)
    assert match_particles(picks.centers_yx, truth, 4).f1 == 1.0


def test_a_crowd_is_told_apart() -> None:
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(np.arange(12, 240, 17), np.arange(12, 240, 17)), -1).reshape(-1, 2)
    truth = grid + rng.uniform(-1.5, 1.5, grid.shape)
    picks = find_particles(disc_mask((256, 256), truth, 18).astype(float), 18)
    assert match_particles(picks.centers_yx, truth, 9).f1 > 0.98


def test_specks_are_no_particles_and_nothing_gives_nothing() -> None:
    speck = disc_mask((64, 64), np.array([[30, 30]]), 5).astype(float)
    assert len(find_particles(speck, 18).scores) == 0
    assert len(find_particles(np.zeros((64, 64)), 18).scores) == 0
    assert len(find_particles(np.ones((64, 64)), 18).scores) == 0


def test_scores_follow_the_probability() -> None:
    truth = np.array([[20.0, 20.0], [20.0, 60.0]])
    probability = 0.6 * disc_mask((40, 80), truth[:1], 18) + 0.9 * disc_mask((40, 80), truth[1:], 18)
    picks = find_particles(probability, 18)
    assert picks.scores == pytest.approx([0.9, 0.6])
    assert picks.centers_yx[0, 1] > picks.centers_yx[1, 1]
