from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import disc_mask
from tiers import take, thorough

from cryoquery.data.build import BuildConfig, build_dataset
from cryoquery.data.layouts import SourceOptions, read_sources
from cryoquery.errors import DataError
from cryoquery.network.device import DeviceConfig
from cryoquery.picking.diameter import (
    DiameterEstimate,
    _read_off,
    diameter_warnings,
    draw_estimate,
    estimate_diameter,
    expected_skill,
)
from cryoquery.picking.picker import Picker, load_picker

SHAPE = (400, 400)


@cache
def general() -> Picker:
    return load_picker("general", DeviceConfig(accelerator="cpu"))


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


def read_off(*curve: float) -> DiameterEstimate:
    return _read_off(np.array([10.0, 20.0, 40.0, 80.0]), np.array([curve]))


def test_of_diameters_that_fit_equally_well_one_of_the_smaller_is_taken() -> None:
    estimate = read_off(0.2, 0.89, 0.9, 0.5)
    assert 10 < estimate.interval_px[0] < 20
    assert estimate.interval_px[1] == pytest.approx(40, rel=0.02)
    assert estimate.best_px == pytest.approx(20 * 2**0.25, rel=0.01)
    assert read_off(0.9, 0.5, 0.3, 0.1).best_px == pytest.approx(10, rel=0.02)
    assert read_off(0.0, 0.0, 0.0, 0.9).best_px == pytest.approx(80, rel=0.02)


def test_a_stated_diameter_that_does_not_fit_is_named() -> None:
    estimate = read_off(0.2, 0.895, 0.9, 0.5)
    assert estimate.warning(25) == ""
    assert "a particle diameter of 11 px is stated" in estimate.warning(11)
    assert "fits far better" in estimate.warning(80)


def test_a_map_without_doubt_has_skill_and_a_flat_one_has_none() -> None:
    sharp = disc_mask((64, 64), np.array([[30.0, 30.0]]), 18).astype(float)
    assert expected_skill(sharp) == pytest.approx(1)
    assert expected_skill(np.full((64, 64), 0.3)) == pytest.approx(0, abs=1e-9)
    assert expected_skill(np.zeros((64, 64))) == 0


@thorough
@pytest.mark.parametrize("diameter", take([34.0], [18.0, 34.0]))
def test_the_general_model_finds_the_diameter_of_discs(diameter: float) -> None:
    estimate = estimate_diameter([micrograph(diameter, seed) for seed in (0, 1)], general())
    assert estimate.best_px == pytest.approx(diameter, rel=0.25), "flat discs are no particles"
    assert estimate.interval_px[0] <= estimate.best_px <= estimate.interval_px[1]
    assert draw_estimate(estimate, micrograph(diameter), general()).startswith(b"\x89PNG")


def test_no_micrographs_are_an_error() -> None:
    with pytest.raises(DataError, match="no micrographs"):
        estimate_diameter([], general())


@thorough
@pytest.mark.realdata
@pytest.mark.parametrize(("group", "doubted"), take([("10146", True)], [("10028", False), ("10146", True)]))
def test_labels_that_state_too_small_a_diameter_are_doubted(
    real_data: Path, tmp_path: Path, group: str, doubted: bool
) -> None:
    """Of the rings of apoferritin, 80 px wide, the labels say 60 px."""
    source = read_sources([real_data / f"empiar_{group}"], SourceOptions())
    config = BuildConfig(field=256, particle_px=18)
    dataset = build_dataset(source.micrographs[:1], tmp_path / "d", config, origin=source.origin)
    warnings = diameter_warnings(dataset, general())
    assert ["fits far better" in warning for warning in warnings] == [True] * doubted
    assert all(warning.startswith("group 10146: a particle diameter of 6") for warning in warnings)
