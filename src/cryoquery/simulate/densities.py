"""3D densities of proteins as sums of Gaussian beads, and their projections.

The projection of a Gaussian ball is the same 2D Gaussian from every side, so a projection along the
beam is exact: rotate the bead centers, drop one coordinate, add up 2D Gaussians. That convolution
with a Gaussian is one multiplication in Fourier space (`bead_envelope`) for all particles of a
micrograph together, and every particle has its own orientation and its own sub-pixel position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryoquery.simulate.config import Protein

BEAD_KDA = 2.0
"""Mass of one bead."""

ANGSTROM3_PER_KDA = 1212.0
"""Volume of folded protein, at a partial specific volume of 0.73 cm³/g."""

BEAD_SIGMA_ANGSTROM = 4.5
"""A ball of one bead's volume has a radius of 8.3 Å and a standard deviation of 3.7 Å along each
axis; a little more stands for the flexibility of the chain."""

_BEAD_RADIUS_ANGSTROM = 2 * BEAD_SIGMA_ANGSTROM


@dataclass(frozen=True)
class BeadModel:
    """A density: equal Gaussian beads around the origin."""

    centers: NDArray[np.float32]
    """(n, 3) positions in Å as (y, x, z); z is the long axis of what has one."""
    bead_volume: float
    """Å³ of protein per bead."""

    @property
    def volume(self) -> float:
        """Å³ of protein; what the projection sums to, times the pixel area, from every side."""
        return self.bead_volume * len(self.centers)


@cache
def bead_model(protein: Protein, seed: int) -> BeadModel:
    """The density of ``protein``; the irregular ones look different with another ``seed``."""
    rng = np.random.default_rng([seed, *protein.name.encode()])
    n_beads = max(1, round(protein.mass_kda / BEAD_KDA))
    half_length = max(protein.length_angstrom / 2 - _BEAD_RADIUS_ANGSTROM, 1.0)
    half_width = max(protein.width / 2 - _BEAD_RADIUS_ANGSTROM, 1.0)
    if protein.shape == "shell":
        centers = _in_ball(rng, n_beads, protein.hollow) * half_length
    elif protein.shape in ("barrel", "rod"):
        centers = _in_cylinder(rng, n_beads, protein.hollow) * [half_width, half_width, half_length]
    elif protein.shape == "lobes":
        centers = _in_two_lobes(rng, n_beads, half_length, half_width)
    else:
        centers = _in_clump(rng, n_beads) * half_length
    beads = centers.astype(np.float32)
    beads.setflags(write=False)
    volume = protein.mass_kda * ANGSTROM3_PER_KDA
    return BeadModel(beads, volume / n_beads)


def _even(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """``n`` points (n, 3) that fill the unit cube evenly: random points would clump as no protein does.

    The additive recurrence R3 of Roberts (2018), which generalizes the golden ratio to 3 dimensions.
    """
    step = 1 / 1.2207440846057596 ** np.arange(1, 4)
    return np.asarray((rng.random(3) + np.arange(n)[:, None] * step) % 1)


def _in_ball(rng: np.random.Generator, n: int, hollow: float = 0.0) -> NDArray[np.float64]:
    """``n`` points (n, 3) even in the unit ball outside radius ``hollow``."""
    u, v, w = _even(rng, n).T
    radius = np.cbrt(hollow**3 + (1 - hollow**3) * u)
    z = 2 * v - 1
    across = np.sqrt(1 - z**2)
    angle = 2 * np.pi * w
    directions = np.stack([across * np.sin(angle), across * np.cos(angle), z], axis=1)
    return np.asarray(directions * radius[:, None])


def _in_cylinder(rng: np.random.Generator, n: int, hollow: float) -> NDArray[np.float64]:
    """``n`` points (n, 3) in the cylinder of radius 1 and |z| ≤ 1, outside radius ``hollow``.

    It narrows towards both ends: its diagonal is hardly longer than its axis.
    """
    u, v, w = _even(rng, n).T
    z = 2 * w - 1
    radius = np.sqrt(hollow**2 + (1 - hollow**2) * u) * (1 - 0.5 * z**4)
    angle = 2 * np.pi * v
    return np.stack([radius * np.sin(angle), radius * np.cos(angle), z], axis=1)


def _in_two_lobes(
    rng: np.random.Generator, n: int, half_length: float, half_width: float
) -> NDArray[np.float64]:
    """``n`` points (n, 3), Å: two balls at the ends of z, the smaller one with 0.4 of the mass."""
    n_small = round(0.4 * n)
    lobes = []
    for count, radius, side in ((n - n_small, half_width, 1.0), (n_small, 0.8 * half_width, -1.0)):
        lobe = _in_ball(rng, count) * radius
        lobe[:, 2] += side * (half_length - radius)
        lobes.append(lobe)
    return np.concatenate(lobes)


def _in_clump(rng: np.random.Generator, n: int, n_waves: int = 12) -> NDArray[np.float64]:
    """``n`` points (n, 3) in an irregular clump with clefts that just fits into the unit ball.

    Half of a ball: where a random field of plane waves, lowered towards the rim, is highest.
    """
    points = _in_ball(rng, 2 * n)
    waves = rng.standard_normal((n_waves, 3)) * 5.0
    field = np.cos(points @ waves.T + rng.uniform(0, 2 * np.pi, n_waves)).sum(axis=1) * math.sqrt(2 / n_waves)
    field -= 1.8 * (points**2).sum(axis=1)
    points = points[np.sort(np.argsort(-field)[:n])]
    points -= points.mean(axis=0)
    return np.asarray(points / np.linalg.norm(points, axis=1).max())


def random_quaternions(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """``n`` orientations (n, 4), uniform over all rotations (Marsaglia 1972)."""
    quaternions = rng.standard_normal((n, 4))
    return np.asarray(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True))


def project_centers(centers: NDArray[np.float32], quaternions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bead centers (b, 3) seen along the beam in each of n orientations: (n, b, 2) as (y, x), Å."""
    rotations = Rotation.from_quat(quaternions).as_matrix()[:, :2].astype(np.float32)
    return np.asarray(np.einsum("nij,bj->nbi", rotations, centers))


def deposit(points: NDArray[np.floating], shape: tuple[int, int], weight: float) -> NDArray[np.float32]:
    """Spread ``weight`` per point over the four nearest pixels of an image (height, width).

    ``points`` (n, 2) as (y, x) in pixels may lie anywhere: the image is periodic, so no weight is
    lost. Bilinear weights blur like a detector pixel; the sum over the image is n · ``weight``.
    """
    height, width = shape
    corner = np.floor(points)
    fraction = np.asarray(points - corner, dtype=np.float32)
    y, x = corner.astype(np.int64).T
    fy, fx = fraction.T
    rows = (y % height * width, (y + 1) % height * width)
    columns = (x % width, (x + 1) % width)
    image = np.zeros(height * width)
    for row, wy in zip(rows, (1 - fy, fy), strict=True):
        for column, wx in zip(columns, (1 - fx, fx), strict=True):
            image += np.bincount(row + column, wy * wx, minlength=height * width)
    return (image.reshape(shape) * weight).astype(np.float32)


def bead_envelope(squared_frequency: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fourier transform of a bead of volume 1 at ``squared_frequency`` (any shape, 1/Å²)."""
    exponent = np.float32(-2 * np.pi**2 * BEAD_SIGMA_ANGSTROM**2) * squared_frequency
    return np.asarray(np.exp(exponent))
