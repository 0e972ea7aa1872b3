"""A scene as the beam meets it: maps of projected protein, of thickness and of phase.

Potentials in volt: vitreous ice 4.5 and protein about 7 (Vulović et al., J. Struct. Biol. 183 (2013)
19), amorphous carbon about 9. The noise of the ice is that of its molecules: N of them in a pixel
column scatter like √(S N), where S = ρ k T κ = 0.06 is the structure factor of water towards zero
frequency (its density fluctuates less than that of an ideal gas). Carbon is taken as an ideal gas: so
strong are the Thon rings of particles on a continuous carbon film (EMPIAR-10028).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoquery.simulate.config import SimulationConfig
from cryoquery.simulate.densities import BeadModel, deposit, project_centers
from cryoquery.simulate.optics import interaction_constant
from cryoquery.simulate.scene import Carbon, Crystal, Placed, Scene, smooth_basis

PROTEIN_CONTRAST_VOLT = 1.8
"""Mean potential of protein above that of the ice it displaces. Calculated potentials give 2.5; bound
water, motion and electrons that carry no image leave less, and this is what real micrographs show."""

WEAK_PHASE = 0.25
"""Crystals and carbon film shift the phase by more than a linear theory can take; the mean shift
saturates here, rad."""

FRAGMENT_BEADS = 0.2
"""Part of the particle's beads in a fragment."""


@dataclass(frozen=True)
class Matter:
    """What the beam passes besides protein."""

    potential_volt: float
    density: float
    """Scatterers per Å³."""
    structure_factor: float
    """Variance of their number relative to a Poisson distribution."""
    mean_free_path_angstrom: float
    """Electrons decay by 1/e over this, by inelastic scattering or out of the aperture; an energy filter
    or the aperture takes them away."""

    def phase_noise(self, voltage_kv: float, pixel_size: float) -> float:
        """Standard deviation of the phase of a pixel, rad per square root of thickness in Å."""
        per_volt = interaction_constant(voltage_kv) / pixel_size
        return per_volt * self.potential_volt * math.sqrt(self.structure_factor / self.density)


ICE = Matter(potential_volt=4.5, density=0.031, structure_factor=0.06, mean_free_path_angstrom=3000)
CARBON = Matter(potential_volt=9.0, density=0.09, structure_factor=1.0, mean_free_path_angstrom=1600)


@dataclass(frozen=True)
class Canvas:
    """The area that is rendered: the micrograph and a margin around it, periodic."""

    shape: tuple[int, int]
    origin: int
    """Row and column of the micrograph's first pixel."""

    def grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates y (h, 1) and x (1, w) in pixels of the micrograph."""
        y, x = (np.arange(n, dtype=np.float32) - self.origin for n in self.shape)
        return y[:, None], x[None, :]


def protein_phase(
    config: SimulationConfig, scene: Scene, model: BeadModel, canvas: Canvas
) -> NDArray[np.float32]:
    """Phase shift (canvas) by all copies of the protein, rad, before the blur by the size of a bead."""
    few = max(1, round(FRAGMENT_BEADS * len(model.centers)))
    # The beads next to the first one: a piece, not a thinner whole.
    nearest = np.argsort(np.linalg.norm(model.centers - model.centers[0], axis=1))[:few]
    points = np.concatenate(
        [
            _bead_points(scene.particles, model.centers, config.pixel_size),
            _bead_points(scene.aggregates, model.centers, config.pixel_size),
            _bead_points(scene.fragments, model.centers[nearest], config.pixel_size),
        ]
    )
    potential = PROTEIN_CONTRAST_VOLT * scene.protein.contrast * model.bead_volume
    weight = interaction_constant(config.voltage_kv) * potential / config.pixel_size**2
    return deposit(points + canvas.origin, canvas.shape, weight)


def ice_thickness(
    config: SimulationConfig, scene: Scene, canvas: Canvas, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Thickness of the ice (canvas) in Å: a smooth field around the protein's mean."""
    rows, columns = (smooth_basis(np.arange(float(n)), 0, n - 1, 4) for n in canvas.shape)
    field = rows @ rng.standard_normal((4, 4)).astype(np.float32) @ columns.T
    relative = np.maximum(1 + config.ice_variation * field, 0.2)
    return np.asarray(relative * scene.protein.ice_angstrom, dtype=np.float32)


def crystal_thickness(crystals: tuple[Crystal, ...], canvas: Canvas) -> NDArray[np.float32]:
    """Thickness of crystals and contamination (canvas) in Å."""
    thickness = np.zeros(canvas.shape, dtype=np.float32)
    for crystal in crystals:
        reach = math.ceil(1.6 * crystal.radius_px) + 1
        window = []
        for center, n in zip(crystal.center, canvas.shape, strict=True):
            middle = round(center) + canvas.origin
            window.append(slice(max(0, middle - reach), min(n, middle + reach + 1)))
        y, x = canvas.grid()
        part = _crystal_profile(
            crystal, y[window[0]] - crystal.center[0], x[:, window[1]] - crystal.center[1]
        )
        thickness[window[0], window[1]] += part
    return thickness


def carbon_thickness(carbon: Carbon, canvas: Canvas) -> NDArray[np.float32]:
    """Thickness of the holey carbon film (canvas) in Å, with an edge two pixels wide."""
    y, x = canvas.grid()
    beyond = np.hypot(y - carbon.hole_center[0], x - carbon.hole_center[1]) - carbon.hole_radius_px
    return np.asarray(np.clip(beyond / 2, 0, 1) * carbon.thickness_angstrom, dtype=np.float32)


def mean_phase(thickness: NDArray[np.float32], matter: Matter, voltage_kv: float) -> NDArray[np.float32]:
    """Phase shift (any shape) by ``thickness`` in Å of ``matter``, saturated at `WEAK_PHASE`, rad."""
    per_angstrom = interaction_constant(voltage_kv) * matter.potential_volt / WEAK_PHASE
    return np.asarray(WEAK_PHASE * np.tanh(np.float32(per_angstrom) * thickness))


def _bead_points(placed: Placed, centers: NDArray[np.float32], pixel_size: float) -> NDArray[np.float64]:
    """Beads (n, 2) of all placed copies as (y, x), pixels of the micrograph."""
    if not len(placed.centers):
        return np.empty((0, 2))
    beads = project_centers(centers, placed.quaternions) / pixel_size
    return np.asarray((beads + placed.centers[:, None, :]).reshape(-1, 2))


def _crystal_profile(crystal: Crystal, y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thickness in Å at offsets (y, x) in pixels from the center: a hexagonal plate or a dome."""
    if crystal.hexagonal:
        sides = crystal.angle + np.arange(3) * math.pi / 3
        distance = np.max([np.abs(y * math.sin(side) + x * math.cos(side)) for side in sides], axis=0)
        profile = np.clip((crystal.radius_px - distance) / 3, 0, 1)
    else:
        angle = np.arctan2(y, x) - crystal.angle
        outline = 1 + sum(a * np.cos(k * angle) for k, a in zip((2, 3, 5), crystal.lobes, strict=True))
        outline = crystal.radius_px * np.clip(outline, 0.5, 1.5)
        profile = np.sqrt(np.clip(1 - (y**2 + x**2) / outline**2, 0, 1))
    return np.asarray(profile * crystal.thickness_angstrom, dtype=np.float32)
