from __future__ import annotations

import numpy as np
import pytest
from conftest import disc_mask
from scipy.ndimage import gaussian_filter

from cryoquery.picking.metrics import match_particles
from cryoquery.picking.peaks import find_particles


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
    probability = 0.6 * disc_mask((40, 80), truth[:1], 18) + 0.95 * disc_mask((40, 80), truth[1:], 18)
    picks = find_particles(probability, 18, threshold=0.3)
    assert picks.scores == pytest.approx([1.0, 0.6], abs=0.1)
    assert picks.centers_yx[0, 1] > picks.centers_yx[1, 1]


def test_scores_tell_sure_discs_from_surer_ones() -> None:
    """All of these are above every cut of the map: the shape alone would give each the same score."""
    truth = np.array([[20.0, 20.0 + 40 * i] for i in range(4)])
    sure = np.array([0.92, 0.96, 0.99, 0.999])
    probability = sum(p * disc_mask((40, 160), truth[i : i + 1], 18) for i, p in enumerate(sure))
    picks = find_particles(np.asarray(probability), 18)
    assert picks.scores == pytest.approx(sure[::-1], abs=0.002)


def test_a_threshold_that_nothing_reaches() -> None:
    probability = 0.9 * disc_mask((40, 40), np.array([[20.0, 20.0]]), 18)
    assert len(find_particles(probability, 18, 0.5).scores) == 1
    assert len(find_particles(probability, 18, 0.99).scores) == 0


def test_a_disc_half_as_wide_scores_half() -> None:
    truth = np.array([[32.0, 32.0]])
    scores = [
        find_particles(disc_mask((64, 64), truth, diameter).astype(float), 24, 0.0).scores[0]
        for diameter in (24, 12)
    ]
    assert scores[0] == pytest.approx(1.0, abs=0.1)
    assert scores[1] == pytest.approx(0.5, abs=0.1)


def test_a_higher_threshold_gives_a_part_of_the_same_picks() -> None:
    rng = np.random.default_rng(5)
    probability = gaussian_filter(rng.random((128, 128)), 4)
    probability = (probability - probability.min()) / np.ptp(probability)
    everything = find_particles(probability, 12, 0.0)
    assert len(everything.scores) > 10
    for threshold in (0.2, 0.4, 0.6):
        some = find_particles(probability, 12, threshold)
        kept = everything.scores >= threshold
        assert np.array_equal(some.centers_yx, everything.centers_yx[kept])
    assert np.all(np.diff(everything.scores) <= 0), "best first"


def test_picks_keep_their_distance() -> None:
    rng = np.random.default_rng(6)
    probability = rng.random((96, 96))
    for distance in (3.0, 8.0):
        centers = find_particles(probability, 6, 0.0, min_distance_px=distance).centers_yx
        gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1)[np.triu_indices(len(centers), 1)]
        assert gaps.min() > distance - 1.5, "centers are moved by less than a pixel after they were chosen"


def test_the_map_may_be_turned() -> None:
    truth = np.array([[20.0, 31.0], [45.0, 14.5], [44.0, 70.0]])
    probability = gaussian_filter(disc_mask((64, 90), truth, 18).astype(float), 1)
    upright, turned = (find_particles(p, 18, 0.0) for p in (probability, probability[::-1, ::-1]))
    back = np.array([63, 89]) - turned.centers_yx
    assert match_particles(back, upright.centers_yx, 0.3).f1 == 1.0


def on_the_rim(centers_yx: np.ndarray, shape: tuple[int, int]) -> int:
    last = np.array(shape) - 1
    return int(((centers_yx < 2) | (centers_yx > last - 2)).any(axis=1).sum())


@pytest.mark.parametrize("background", [0.05, 0.21, 0.35, 0.55])
def test_a_network_that_says_the_same_everywhere_gives_no_picks(background: float) -> None:
    """Nor where a few pixels say something else: distances to these have no say."""
    probability = np.full((120, 160), background)
    assert len(find_particles(probability, 18, 0.0).scores) == 0
    probability[40:44, 100:103] = 0.01
    picks = find_particles(probability, 18, background + 0.25)
    assert len(picks.scores) == 0


def test_noise_gives_no_picks() -> None:
    rng = np.random.default_rng(0)
    for background in (0.1, 0.2, 0.3, 0.5):
        probability = np.clip(background + rng.normal(0, 0.05, (160, 160)), 0, 1)
        assert len(find_particles(probability, 18, background + 0.3).scores) == 0


def test_on_a_background_above_the_lowest_level_the_rim_has_only_particles() -> None:
    """Every disc is found whose center lies 0.3 diameters inside, and nothing else is."""
    truth = np.array([[5.4, 30.0], [40.0, 5.4], [133.6, 90.0], [70.0, 153.6], [60.0, 60.0], [5.4, 5.4]])
    probability = np.where(disc_mask((140, 160), truth, 18), 0.95, 0.21)
    probability[100:110, 20:60] = 0.02  # ice, say
    picks = find_particles(probability, 18, 0.5)
    matches = match_particles(picks.centers_yx, truth, 4)
    assert (matches.n_matched, matches.n_picks) == (len(truth), len(truth))
    assert on_the_rim(picks.centers_yx, probability.shape) == 0
    assert find_particles(probability, 18, 0.0).scores.max() <= 1
