from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryoquery.simulate import PROTEINS, Protein
from cryoquery.simulate.densities import (
    BEAD_SIGMA_ANGSTROM,
    bead_envelope,
    bead_model,
    deposit,
    project_centers,
    random_quaternions,
)
from cryoquery.simulate.optics import (
    contrast_transfer,
    frequency_grid,
    interaction_constant,
    wavelength_angstrom,
)
from cryoquery.simulate.specimen import CARBON, ICE, mean_phase


@pytest.mark.parametrize(("voltage", "expected"), [(300, 0.01969), (200, 0.02508), (100, 0.03701)])
def test_wavelength(voltage: float, expected: float) -> None:
    assert wavelength_angstrom(voltage) == pytest.approx(expected, abs=1e-5)


def test_interaction_constant() -> None:
    assert interaction_constant(300) == pytest.approx(6.526e-4, rel=1e-3)
    assert interaction_constant(100) == pytest.approx(9.244e-4, rel=1e-3)


def ctf(k: NDArray[np.float64] | float, **changes: object) -> NDArray[np.float32]:
    settings: dict[str, object] = {"defocus_angstrom": (15_000.0, 15_000.0), "amplitude_contrast": 0.1}
    kx = np.atleast_1d(np.asarray(k, dtype=np.float32))
    return contrast_transfer(np.zeros_like(kx), kx, **(settings | changes))  # type: ignore[arg-type]


def test_contrast_at_zero_frequency_is_the_amplitude_contrast() -> None:
    assert ctf(0.0)[0] == pytest.approx(-0.1)
    assert ctf(0.0, amplitude_contrast=0.0)[0] == 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_zeros_are_where_the_formula_puts_them(order: int) -> None:
    wavelength, defocus, w = wavelength_angstrom(300), 15_000.0, 0.1
    # Without spherical aberration π λ k² Δf + asin(w) = order · π.
    k = math.sqrt((order - math.asin(w) / math.pi) / (wavelength * defocus))
    around = ctf(np.array([0.99 * k, k, 1.01 * k]), spherical_aberration_mm=0.0)
    assert around[1] == pytest.approx(0, abs=1e-3)
    assert around[0] * around[2] < 0


def test_spherical_aberration_works_against_underfocus() -> None:
    wavelength, cs, k = wavelength_angstrom(300), 2.7e7, 0.12
    balanced = wavelength**2 * k**2 * cs / 2
    value = ctf(k, defocus_angstrom=(balanced, balanced), spherical_aberration_mm=2.7)[0]
    assert value == pytest.approx(-0.1, abs=1e-3)


def test_astigmatism_turns_the_defocus() -> None:
    k, angle = 0.05, 0.4
    astigmatic = {"defocus_angstrom": (16_000.0, 14_000.0), "astigmatism_angle": angle}
    for turn, defocus in (
        (angle, 16_000.0),
        (angle + math.pi / 2, 14_000.0),
        (angle + math.pi / 4, 15_000.0),
    ):
        ky, kx = (np.array([k * f(turn)], dtype=np.float32) for f in (math.sin, math.cos))
        value = contrast_transfer(ky, kx, **astigmatic)[0]  # type: ignore[arg-type]
        assert value == pytest.approx(ctf(k, defocus_angstrom=(defocus, defocus))[0], abs=1e-4)


def test_b_factor_is_an_envelope() -> None:
    k = np.linspace(0, 0.08, 20)
    np.testing.assert_allclose(ctf(k, b_factor=150.0), ctf(k) * np.exp(-150 * k**2 / 4), atol=1e-6)


def test_carbon_shifts_the_phase_more_than_ice_and_saturates() -> None:
    thickness = np.array([0.0, 100.0, 1e5], dtype=np.float32)
    ice, carbon = (mean_phase(thickness, matter, 300) for matter in (ICE, CARBON))
    assert ice[0] == 0
    assert ice[1] < carbon[1]
    assert ice[2] == pytest.approx(carbon[2])


# Densities


@pytest.mark.parametrize("protein", PROTEINS.values(), ids=PROTEINS)
def test_densities_have_the_stated_mass_and_extent(protein: Protein) -> None:
    model = bead_model(protein, 0)
    assert model.volume == pytest.approx(protein.mass_kda * 1212)
    reach = np.linalg.norm(model.centers, axis=1).max() + 2 * BEAD_SIGMA_ANGSTROM
    assert reach * 2 <= protein.length_angstrom * 1.12
    assert reach * 2 >= protein.length_angstrom * 0.95
    assert np.linalg.norm(model.centers.mean(axis=0)) < 0.08 * protein.length_angstrom


def test_hollow_shapes_are_hollow() -> None:
    shell = np.linalg.norm(bead_model(PROTEINS["apoferritin"], 0).centers, axis=1)
    assert shell.min() > 0.6 * shell.max()
    barrel = np.hypot(*bead_model(PROTEINS["proteasome"], 0).centers[:, :2].T)
    assert barrel.min() > 0.19 * barrel.max()


def test_projections_conserve_mass_under_rotation() -> None:
    model = bead_model(PROTEINS["proteasome"], 0)
    turns = random_quaternions(np.random.default_rng(0), 5)
    for points in project_centers(model.centers, turns):
        image = deposit(points / 6.0 + 30, (61, 64), model.bead_volume)
        assert image.sum() == pytest.approx(model.volume, rel=1e-5)


def test_projection_drops_the_coordinate_along_the_beam() -> None:
    centers = np.array([[10.0, 20.0, 30.0]], dtype=np.float32)
    identity = project_centers(centers, np.array([[0.0, 0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(identity, [[[10, 20]]])
    quarter = Rotation.from_euler("x", 90, degrees=True).as_quat()[None]
    np.testing.assert_allclose(project_centers(centers, quarter), [[[10, -30]]], atol=1e-4)


def test_rendered_projection_is_the_sum_of_gaussians() -> None:
    pixel, shape = 3.0, (48, 54)
    points = np.random.default_rng(1).uniform(-30, 30, (20, 2)) / pixel + 24
    ky, kx = frequency_grid(shape, pixel)
    spectrum = np.fft.rfft2(deposit(points, shape, 1.0)) * bead_envelope(ky**2 + kx**2)
    y, x = np.indices(shape)
    sigma = BEAD_SIGMA_ANGSTROM / pixel
    exact = sum(np.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * sigma**2)) for py, px in points)
    exact = exact / (2 * math.pi * sigma**2)
    rendered = np.fft.irfft2(spectrum, s=shape)
    assert np.abs(rendered - exact).max() < 0.12 * exact.max()
    assert np.corrcoef(rendered.ravel(), exact.ravel())[0, 1] > 0.99


def test_orientations_are_uniform() -> None:
    turns = Rotation.from_quat(random_quaternions(np.random.default_rng(0), 20_000)).as_matrix()
    np.testing.assert_allclose(turns.mean(axis=0), 0, atol=0.02)
    # An axis that is uniform on the sphere has uniform coordinates (Archimedes).
    heights = np.sort(turns[:, 2, 2])
    np.testing.assert_allclose(heights, np.linspace(-1, 1, len(heights)), atol=0.03)
