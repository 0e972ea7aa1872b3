"""From a probability map to particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    # Beyond the edge the map goes on as it ends, or a disc cut by the edge would move inward.
    depth = ndimage.distance_transform_edt(np.pad(inside, 1, mode="edge"))[1:-1, 1:-1]
    depth = ndimage.gaussian_filter(depth, SMOOTHING * disc_diameter_px)
    footprint = _disc(MIN_DISTANCE * disc_diameter_px)
    is_peak = depth == ndimage.maximum_filter(depth, footprint=footprint, mode="nearest")
    peaks, n_peaks = ndimage.label(
        is_peak & (depth >= MIN_DEPTH * disc_diameter_px), structure=np.ones((3, 3))
    )
    if n_peaks == 0:
        return Picks(np.empty((0, 2)), np.empty(0))
    centers: NDArray[np.float64] = np.array(ndimage.center_of_mass(is_peak, peaks, range(1, n_peaks + 1)))
    core = _disc(disc_diameter_px / 4)
    local_mean = ndimage.convolve(probability.astype(np.float64), core / core.sum(), mode="nearest")
    at = np.rint(centers).astype(int)
    scores = local_mean[at[:, 0], at[:, 1]]
    order = np.argsort(-scores, kind="stable")
    return Picks(centers[order], scores[order])


def _disc(radius: float) -> NDArray[np.bool_]:
    reach = max(1, int(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc: NDArray[np.bool_] = y**2 + x**2 <= max(1.0, radius) ** 2
    return disc
