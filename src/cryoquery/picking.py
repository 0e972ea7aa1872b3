"""From a probability map to particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

MIN_DEPTH = 0.25
"""A particle's center lies at least this far inside its disc, in disc diameters: half of the ideal."""
MIN_DISTANCE = 0.5
"""Two centers are at least this far apart, in disc diameters."""
SMOOTHING = 0.06
"""Sigma of the Gaussian that merges neighboring maxima, in disc diameters."""


@dataclass(frozen=True)
class Picks:
    """Particles that were found, best first."""

    centers_yx: NDArray[np.float64]
    """(n, 2) in pixels of the map."""
    scores: NDArray[np.float64]
    """(n,) mean probability within half the disc's radius, in [0, 1]."""


def find_particles(
    probability: NDArray[np.floating], disc_diameter_px: float, threshold: float = 0.5
) -> Picks:
    """Find the discs in a map of probabilities (h, w) in [0, 1].

    The centers of discs are where the distance to the nearest pixel below ``threshold`` has a
    maximum, which also tells discs apart that touch or overlap by less than half their diameter.
    """
    inside = probability >= threshold
    if not inside.any() or inside.all():
        return Picks(np.empty((0, 2)), np.empty(0))
    # Beyond the edge the map goes on as it ends, or a disc cut by the edge would move inward.
    depth = ndimage.distance_transform_edt(np.pad(inside, 1, mode="edge"))[1:-1, 1:-1]
    depth = ndimage.gaussian_filter(depth, SMOOTHING * disc_diameter_px)
    is_peak = (depth == ndimage.maximum_filter(depth, size=3)) & (depth >= MIN_DEPTH * disc_diameter_px)
    peaks, n_peaks = ndimage.label(is_peak, structure=np.ones((3, 3)))
    if n_peaks == 0:
        return Picks(np.empty((0, 2)), np.empty(0))
    numbers = np.arange(1, n_peaks + 1)
    centers: NDArray[np.float64] = np.array(ndimage.center_of_mass(is_peak, peaks, numbers))
    kept = _apart(centers, ndimage.maximum(depth, peaks, numbers), MIN_DISTANCE * disc_diameter_px)
    centers = centers[kept]
    scores = _local_mean(probability, centers, disc_diameter_px / 4)
    order = np.argsort(-scores, kind="stable")
    return Picks(centers[order], scores[order])


def _apart(centers: NDArray[np.float64], depth: NDArray[np.float64], distance: float) -> NDArray[np.int64]:
    """Rows that stay when of any two centers closer than ``distance`` only the deeper one stays."""
    neighbors = KDTree(centers).query_ball_point(centers, distance)
    dropped = np.zeros(len(centers), dtype=bool)
    kept = []
    for row in np.argsort(-depth, kind="stable"):
        if not dropped[row]:
            kept.append(row)
            dropped[neighbors[row]] = True
    return np.array(kept, dtype=np.int64)


def _local_mean(
    probability: NDArray[np.floating], centers: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Mean probability within ``radius`` of each center; the map goes on as it ends."""
    offsets = np.argwhere(_disc(radius)) - _disc(radius).shape[0] // 2
    at = np.rint(centers).astype(int)[:, None, :] + offsets[None]
    height, width = probability.shape
    y, x = np.clip(at[..., 0], 0, height - 1), np.clip(at[..., 1], 0, width - 1)
    means: NDArray[np.float64] = probability[y, x].mean(axis=1, dtype=np.float64)
    return means


def _disc(radius: float) -> NDArray[np.bool_]:
    reach = max(1, int(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc: NDArray[np.bool_] = y**2 + x**2 <= max(1.0, radius) ** 2
    return disc
