"""What lies where in a micrograph: drawn from the seed alone, known before a pixel is rendered."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryoquery.simulate.config import Protein, SimulationConfig
from cryoquery.simulate.densities import random_quaternions
from cryoquery.simulate.optics import wavelength_angstrom


@dataclass(frozen=True)
class Placed:
    """Copies of the protein's density."""

    centers: NDArray[np.float64]
    """(n, 2) as (y, x), pixels of the micrograph; may lie outside it."""
    quaternions: NDArray[np.float64]
    """(n, 4)"""


@dataclass(frozen=True)
class Crystal:
    """A piece of ice or of other contamination."""

    center: tuple[float, float]
    radius_px: float
    thickness_angstrom: float
    hexagonal: bool
    angle: float
    lobes: tuple[float, float, float]
    """Amplitudes of the 2nd, 3rd and 5th harmonic of the outline, relative to the radius."""


@dataclass(frozen=True)
class Carbon:
    """Carbon film with a round hole: the film is what lies further than the radius from the center."""

    hole_center: tuple[float, float]
    hole_radius_px: float
    thickness_angstrom: float


@dataclass(frozen=True)
class Scene:
    """One micrograph before it is rendered."""

    index: int
    protein: Protein
    particles: Placed
    """Labeled where the center lies inside the micrograph."""
    aggregates: Placed
    fragments: Placed
    crystals: tuple[Crystal, ...]
    carbon: Carbon | None
    defocus_angstrom: tuple[float, float]
    astigmatism_angle: float
    exposure: int = 0
    """Which of the micrographs of this place."""

    def labels(self, config: SimulationConfig) -> NDArray[np.float64]:
        """(n, 3) rows (y, x, diameter) in pixels, of the particles whose center lies inside."""
        extent = np.array([config.height_px, config.width_px])
        centers = self.particles.centers
        inside = ((centers >= 0) & (centers <= extent - 1)).all(axis=1)
        diameter = np.full((int(inside.sum()), 1), diameter_px(self.protein, config))
        return np.hstack([centers[inside], diameter])


def diameter_px(protein: Protein, config: SimulationConfig) -> float:
    """What an expert would measure: the greatest extent of the particle, in pixels."""
    return protein.length_angstrom / config.pixel_size


def margin_px(protein: Protein, config: SimulationConfig) -> int:
    """How far beyond the micrograph the scene goes on.

    Far enough for particles on the edge, and for what defocus delocalizes: λ Δf k at the Nyquist
    frequency.
    """
    delocalized = (
        wavelength_angstrom(config.voltage_kv) * config.defocus_um[1] * 1e4 / (2 * config.pixel_size**2)
    )
    return math.ceil(diameter_px(protein, config) / 2 + delocalized) + 2


def assign_proteins(config: SimulationConfig) -> list[Protein]:
    """The protein of each scene: at every length of the list as close to the shares as can be."""
    total = sum(protein.share for protein in config.proteins)
    shares = [protein.share / total for protein in config.proteins]
    counts = [0] * len(shares)
    assigned = []
    for n in range(1, config.n_scenes + 1):
        chosen = max(range(len(shares)), key=lambda k: n * shares[k] - counts[k])
        counts[chosen] += 1
        assigned.append(config.proteins[chosen])
    return assigned


def draw_scene(config: SimulationConfig, index: int, protein: Protein) -> Scene:
    """Everything about scene ``index`` except its noise, from [seed, index] alone."""
    rng = np.random.default_rng([config.seed, index, 0])
    size = diameter_px(protein, config)
    margin = margin_px(protein, config)
    low = np.array([-margin, -margin])
    high = np.array([config.height_px, config.width_px]) + margin
    defocus = rng.uniform(*config.defocus_um) * 1e4
    astigmatism = rng.uniform(0, config.astigmatism_angstrom) / 2
    carbon = _draw_carbon(rng, config) if rng.random() < config.junk.carbon else None
    crystals = tuple(
        _draw_crystal(rng, rng.uniform(low, high), config) for _ in range(rng.poisson(config.junk.crystals))
    )
    clumps = rng.uniform(low, high, (rng.poisson(config.junk.aggregates), 2))
    clump_radius = 1.2 * size
    taken = [(*crystal.center, crystal.radius_px) for crystal in crystals]
    taken += [(y, x, clump_radius) for y, x in clumps]

    n_wanted = _draw_count(rng, config, protein, float(np.prod(high - low)))
    candidates = _crowded_points(rng, 6 * n_wanted + 64, low, high)
    candidates = candidates[_is_clear(candidates, taken, carbon, size)]
    centers = thin_out(candidates, protein.min_distance * size)[:n_wanted]
    aggregated = _clump_members(rng, clumps, clump_radius)
    pieces = rng.uniform(low, high, (rng.poisson(config.junk.fragments), 2))
    return Scene(
        index=index,
        protein=protein,
        particles=Placed(centers, random_quaternions(rng, len(centers))),
        aggregates=Placed(aggregated, random_quaternions(rng, len(aggregated))),
        fragments=Placed(pieces, random_quaternions(rng, len(pieces))),
        crystals=crystals,
        carbon=carbon,
        defocus_angstrom=(defocus + astigmatism, defocus - astigmatism),
        astigmatism_angle=rng.uniform(0, math.pi),
    )


def expose_again(config: SimulationConfig, scene: Scene, exposure: int) -> Scene:
    """The ``scene`` a little displaced, as the stage comes back to it; exposure 0 is the scene itself."""
    if exposure == 0:
        return scene
    reach = config.displacement_angstrom / config.pixel_size
    rng = np.random.default_rng([config.seed, scene.index, 2, exposure])
    dy, dx = rng.uniform(-reach, reach, 2).tolist()

    def moved(placed: Placed) -> Placed:
        return Placed(placed.centers + np.array([dy, dx]), placed.quaternions)

    carbon = scene.carbon
    if carbon is not None:
        y, x = carbon.hole_center
        carbon = replace(carbon, hole_center=(y + dy, x + dx))
    return replace(
        scene,
        particles=moved(scene.particles),
        aggregates=moved(scene.aggregates),
        fragments=moved(scene.fragments),
        crystals=tuple(replace(c, center=(c.center[0] + dy, c.center[1] + dx)) for c in scene.crystals),
        carbon=carbon,
        exposure=exposure,
    )


def thin_out(points: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Keep each of the ``points`` (n, 2) that is at least ``distance`` from all kept before it."""
    pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")
    kept = np.ones(len(points), dtype=bool)
    for earlier, later in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if kept[earlier]:
            kept[later] = False
    return points[kept]


def smooth_basis(
    positions: NDArray[np.floating], low: float, high: float, n_knots: int
) -> NDArray[np.float32]:
    """Weights (n, n_knots) of bumps spread over [low, high], each row of length 1.

    ``rows @ normal(n_knots, n_knots) @ columns.T`` is a smooth random field of unit variance.
    """
    spacing = (high - low) / (n_knots - 1)
    knots = low + spacing * np.arange(n_knots)
    weights = np.exp(-((positions[:, None] - knots) ** 2) / (2 * (0.7 * spacing) ** 2))
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), dtype=np.float32)


def _draw_count(rng: np.random.Generator, config: SimulationConfig, protein: Protein, area_px: float) -> int:
    """Particles to place: Poisson around a density that varies by a gamma factor, sometimes none."""
    if rng.random() < config.empty:
        return 0
    mean = protein.coverage * area_px / (math.pi / 4 * diameter_px(protein, config) ** 2)
    if config.crowding_variation > 0:
        shape = config.crowding_variation**-2
        mean *= rng.gamma(shape, 1 / shape)
    return int(rng.poisson(mean))


def _crowded_points(
    rng: np.random.Generator, n: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``n`` points (n, 2), in an order that puts some regions of the ice first: these become crowded."""
    points = rng.uniform(low, high, (n, 2))
    n_knots = 4
    by_row = smooth_basis(points[:, 0], low[0], high[0], n_knots)
    by_column = smooth_basis(points[:, 1], low[1], high[1], n_knots)
    field = np.einsum("ni,ij,nj->n", by_row, rng.standard_normal((n_knots, n_knots)), by_column)
    # Ordering by a random key that the field shifts, instead of dropping points: the count stays.
    return points[np.argsort(rng.gumbel(size=n) - field, kind="stable")]


def _is_clear(
    points: NDArray[np.float64],
    taken: list[tuple[float, float, float]],
    carbon: Carbon | None,
    size: float,
) -> NDArray[np.bool_]:
    """Which ``points`` (n, 2) a particle of diameter ``size`` can take: off the discs, off the carbon."""
    clear = np.ones(len(points), dtype=bool)
    for y, x, radius in taken:
        clear &= np.hypot(points[:, 0] - y, points[:, 1] - x) > radius + size / 2
    if carbon is not None:
        distance = np.hypot(*(points - carbon.hole_center).T)
        clear &= distance < carbon.hole_radius_px - size / 2
    return clear


def _draw_carbon(rng: np.random.Generator, config: SimulationConfig) -> Carbon:
    """A hole of 1.2 µm whose edge crosses the micrograph and leaves most of it free."""
    radius = max(6000 / config.pixel_size, config.height_px, config.width_px)
    angle = rng.uniform(0, 2 * math.pi)
    # The edge lies at this distance from the middle of the micrograph.
    edge = rng.uniform(0.15, 0.45) * min(config.height_px, config.width_px)
    y = config.height_px / 2 + (edge - radius) * math.sin(angle)
    x = config.width_px / 2 + (edge - radius) * math.cos(angle)
    return Carbon((y, x), radius, thickness_angstrom=rng.uniform(80, 200))


def _draw_crystal(rng: np.random.Generator, center: NDArray[np.float64], config: SimulationConfig) -> Crystal:
    radius = math.exp(rng.uniform(math.log(60), math.log(240)))
    lobes = rng.normal(0, (0.12, 0.08, 0.04))
    return Crystal(
        center=(float(center[0]), float(center[1])),
        radius_px=radius / config.pixel_size,
        thickness_angstrom=rng.uniform(0.4, 2.2) * radius,
        hexagonal=bool(rng.random() < 0.3),
        angle=rng.uniform(0, math.pi),
        lobes=(float(lobes[0]), float(lobes[1]), float(lobes[2])),
    )


def _clump_members(
    rng: np.random.Generator, clumps: NDArray[np.float64], radius_px: float
) -> NDArray[np.float64]:
    """Centers (n, 2) of the 6–16 particles in each of the ``clumps`` (m, 2)."""
    members = [center + rng.normal(0, radius_px / 2.5, (int(rng.integers(6, 17)), 2)) for center in clumps]
    return np.concatenate([np.empty((0, 2)), *members])
