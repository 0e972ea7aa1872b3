from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import disc_mask

from cryoquery import pick_particles
from cryoquery.errors import ConfigError
from cryoquery.formats import read_coordinates
from cryoquery.picking.log_picker import between_two_kinds, blob_response, find_blobs
from cryoquery.picking.metrics import match_particles
from cryoquery.picking.picker import LogPicker, PickOptions, open_picker, pick_file

SHAPE = (260, 340)
DIAMETER = 30.0
CENTERS = np.array(
    [[40.0 + 45 * row, 40 + 52 * column] for row in range(5) for column in range(6) if (row + column) % 4]
)


def micrograph(hollow: bool = False, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Dark discs, or rings, in noise."""
    shape = (round(SHAPE[0] * scale), round(SHAPE[1] * scale))
    centers = (CENTERS + 0.5) * scale - 0.5
    shown = disc_mask(shape, centers, DIAMETER * scale).astype(np.float32)
    if hollow:
        shown -= disc_mask(shape, centers, 0.6 * DIAMETER * scale)
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32) - 8 * shown


@pytest.mark.parametrize(
    ("hollow", "stated"), [(False, 0.8), (False, 1.0), (False, 1.25), (True, 1.0), (True, 1.25)]
)
def test_particles_are_found_at_a_diameter_somewhat_wrong(hollow: bool, stated: float) -> None:
    picks = pick_particles("log", micrograph(hollow), diameter_px=stated * DIAMETER)
    found = match_particles(picks.centers_yx, CENTERS, DIAMETER / 2)
    assert found.f1 > 0.95
    assert found.distances_px.mean() < 0.15 * DIAMETER


def test_scores_part_particles_from_noise_at_one_half() -> None:
    everything = pick_particles("log", micrograph(), diameter_px=DIAMETER, threshold=0)
    assert everything.scores is not None
    assert ((everything.scores > 0) & (everything.scores < 1)).all()
    picks = pick_particles("log", micrograph(), diameter_px=DIAMETER)
    assert len(picks) == (everything.scores >= 0.5).sum() < len(everything)


def test_gain_offset_and_sampling_do_not_matter() -> None:
    picks = pick_particles("log", micrograph(), diameter_px=DIAMETER)
    for same in (5 - 0.1 * -micrograph(), micrograph(scale=2.0)):
        factor = same.shape[0] / SHAPE[0]
        other = pick_particles("log", same, diameter_px=factor * DIAMETER)
        moved = (other.centers_yx + 0.5) / factor - 0.5
        assert match_particles(moved, picks.centers_yx, 0.2 * DIAMETER).f1 > 0.95


def test_contrast_is_inverted_on_request() -> None:
    picks = pick_particles("log", -micrograph(), diameter_px=DIAMETER, invert=True)
    assert match_particles(picks.centers_yx, CENTERS, DIAMETER / 2).f1 > 0.95


def test_the_response_is_centered_and_in_its_own_deviations() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    one = blob_response(noise, np.array([16.0]))
    assert abs(float(np.median(one))) < 1e-6
    assert one.std() == pytest.approx(1, abs=0.1)
    disc = -disc_mask((41, 41), np.array([[20, 20]]), 8).astype(np.float32)
    assert np.unravel_index(blob_response(disc, np.array([8.0])).argmax(), (41, 41)) == (20, 20)


def test_two_kinds_are_parted_between_them() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(1, 0.2, 300), rng.normal(5, 0.2, 40)
    cut, share = between_two_kinds(np.concatenate([low, high]))
    assert low.max() < cut < high.min()
    assert share > 0.95
    assert between_two_kinds(low)[1] == pytest.approx(2 / np.pi, abs=0.05)
    assert between_two_kinds(np.array([3.0])) == (3, 0)


def test_no_maxima_are_no_picks() -> None:
    assert len(find_blobs(np.zeros((50, 50), np.float32), 5.0).scores) == 0


def test_the_diameter_must_be_known() -> None:
    with pytest.raises(ConfigError, match="give --diameter-px"):
        pick_particles("log", micrograph())


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("folder", "labels", "diameter", "least"),
    [
        ("empiar_10146", "coordinates", 60, 0.85),
        ("empiar_10028", "coordinates_completed", 56, 0.9),
        ("empiar_10017", "coordinates", 108, 0.7),
    ],
)
def test_real_particles(real_data: Path, folder: str, labels: str, diameter: float, least: float) -> None:
    path = sorted((real_data / folder / "micrographs").iterdir())[-1]
    truth = read_coordinates(real_data / folder / labels / f"{path.stem}.csv").centers_yx
    picks = pick_file(open_picker("log"), path, PickOptions(diameter_px=diameter)).picks
    assert isinstance(open_picker("log"), LogPicker)
    assert match_particles(picks.centers_yx, truth, diameter / 2).f1 > least
