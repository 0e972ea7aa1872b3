"""From a probability map to particles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit, logit

from cryoquery.data.preprocess import apart

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Probabilities at which the map is cut; the shape of a disc is judged at each."""
SMOOTHING = 0.06
"""Sigma of the Gaussian that merges neighboring maxima, in disc diameters."""
PEAK = 1 - 2 * SMOOTHING * math.sqrt(math.pi / 2)
"""What this leaves of the peak of a cone as wide as the disc, which the distances in a clean disc are."""
MIN_DISTANCE = 0.5
"""Two centers are at least this far apart, in particle diameters, where nothing else is asked for."""
BEYOND_EDGE = 0.4
"""So many radii beyond its edge a map ends: discs whose centers lie at least 0.6 radii (0.3 diameters) inside
count in full, those cut further count for less, and the rim itself is no place for a maximum."""
FLOOR = 0.02
"""Maxima below this are ripples of the background."""
CORE = 2 / 3
"""Certainty is averaged over so much of the disc's radius: over its middle, not over its rim."""
CERTAIN = 8.0
"""Log-odds are limited to this, so that one pixel cannot decide: a probability of 0.9997."""
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Detections:
    """Particles that were found, best first."""

    centers_yx: NDArray[np.float64]
    """(n, 2) in pixels of the map."""
    scores: NDArray[np.float64]
    """(n,) in [0, 1], see `find_particles`."""


def find_particles(
    probability: NDArray[np.floating],
    disc_diameter_px: float,
    threshold: float = DEFAULT_THRESHOLD,
    min_distance_px: float | None = None,
) -> Detections:
    """Find the discs in a map of probabilities (h, w) in [0, 1].

    Centers are the maxima of `disc_scores`, which tells discs apart that touch or overlap by less
    than half their diameter. The score of each is the lower one of two: how much of a disc there is, and
    how sure the network is in its middle, the mean of its log-odds as a probability. Of two maxima closer
    than ``min_distance_px`` (default: half of a disc) the one with the higher score stays. A higher
    threshold gives a part of the same picks.

    Args:
        probability: (h, w) that a pixel belongs to a disc.
        disc_diameter_px: diameter of the discs that the network was asked to draw, pixels of the map.
        threshold: lowest score that counts as a particle.
        min_distance_px: pixels of the map.
    """
    discs = disc_scores(probability, disc_diameter_px)
    is_peak = (discs == ndimage.maximum_filter(discs, size=3)) & (discs >= max(threshold, FLOOR))
    peaks, n_peaks = ndimage.label(is_peak, structure=np.ones((3, 3)))
    if n_peaks == 0 or discs.min() == discs.max():
        return Detections(np.empty((0, 2)), np.empty(0))
    plateaus, heights = _plateaus(discs, peaks, n_peaks)
    scores = np.minimum(heights, certainty(probability, plateaus, CORE * disc_diameter_px / 2))
    found = scores >= threshold
    plateaus, scores = plateaus[found], scores[found]
    distance = MIN_DISTANCE * disc_diameter_px if min_distance_px is None else min_distance_px
    kept = apart(plateaus, scores, distance)
    return Detections(_refine(discs, plateaus[kept]), scores[kept])


def certainty(
    probability: NDArray[np.floating], centers_yx: NDArray[np.float64], radius_px: float
) -> NDArray[np.float64]:
    """How sure the network is around each of the centers (n, 2): mean log-odds as a probability, (n,).

    Unlike the mean of probabilities it goes on rising where all of them are near 1, so that it ranks picks
    that the network is sure of.
    """
    reach = math.floor(radius_px)
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    offsets = offsets[(offsets**2).sum(axis=1) <= radius_px**2]
    at = np.rint(centers_yx).astype(np.int64)[:, None] + offsets
    inside = ((at >= 0) & (at < probability.shape)).all(axis=-1)
    y, x = np.where(inside[..., None], at, 0).transpose(2, 0, 1)
    log_odds = np.where(inside, np.clip(logit(probability[y, x].astype(np.float64)), -CERTAIN, CERTAIN), 0.0)
    return np.asarray(expit(log_odds.sum(axis=1) / inside.sum(axis=1)))


def _plateaus(
    scores: NDArray[np.float32], peaks: NDArray[np.integer], n_peaks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centers (n, 2) and heights (n,) of the maxima that are numbered from 1 in ``peaks`` (h, w)."""
    at = np.nonzero(peaks)
    number = peaks[at] - 1
    n_pixels = np.bincount(number, minlength=n_peaks)
    centers = np.stack([np.bincount(number, along, n_peaks) / n_pixels for along in at], axis=1)
    heights = np.empty(n_peaks)
    heights[number] = scores[at]  # one value: touching maxima are equally high
    return centers, heights


def disc_scores(probability: NDArray[np.floating], disc_diameter_px: float) -> NDArray[np.float32]:
    """How much of a disc lies around each pixel (h, w).

    At each of `LEVELS` the map is cut, and the distance to the nearest pixel below the cut is taken
    in radii of the disc, at most 1; the result is the mean over the cuts, slightly smoothed. In the
    middle of a clean disc of probability p it is about p; a disc half as wide as expected scores half,
    and a background of probability p about p as well, however wide it is.
    """
    radius = max(disc_diameter_px / 2, 0.5)
    beyond = round(BEYOND_EDGE * radius)
    total = np.zeros(probability.shape, dtype=np.float32)
    for level in LEVELS:
        inside = probability >= level
        if not inside.any():
            break
        if inside.all():
            total += 1.0
        else:
            # No further than a radius: where a whole background lies above a level, distances have no end,
            # and are largest in the corners of the map.
            total[inside] += np.minimum(_distance(inside, beyond) / radius, 1.0).astype(np.float32)
    mean = total / np.float32(len(LEVELS) * PEAK)
    return np.asarray(ndimage.gaussian_filter(mean, SMOOTHING * disc_diameter_px, mode="nearest"))


def _distance(inside: NDArray[np.bool_], beyond: int) -> NDArray[np.float64]:
    """Distance (n,) of the pixels ``inside`` to the nearest one that is not, or to what ends the map.

    The map goes on for ``beyond`` px as it ends at the edge. Scipy finds the nearest pixel quickly, but
    computes the distances of all pixels at length.
    """
    padded = np.pad(np.pad(inside, beyond, mode="edge"), 1)
    nearest = ndimage.distance_transform_edt(padded, return_distances=False, return_indices=True)
    y, x = np.nonzero(inside)
    start = beyond + 1
    window = np.s_[start : start + inside.shape[0], start : start + inside.shape[1]]
    to_y, to_x = (axis[window][inside] - start for axis in nearest)
    return np.asarray(np.sqrt(((to_y - y) ** 2 + (to_x - x) ** 2).astype(np.float64)))


def _refine(scores: NDArray[np.float32], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centers moved to the vertex of the parabola through the neighboring scores, along each axis."""
    at = np.rint(centers).astype(np.int64)
    refined = centers.copy()
    for axis in (0, 1):
        step = np.eye(2, dtype=np.int64)[axis]
        last = np.array(scores.shape) - 1
        before, here, after = (
            scores[tuple(np.clip(at + shift * step, 0, last).T)].astype(np.float64) for shift in (-1, 0, 1)
        )
        bend = before - 2 * here + after
        is_vertex = (bend < 0) & (at[:, axis] > 0) & (at[:, axis] < last[axis])
        shift = np.divide(before - after, 2 * bend, out=np.zeros(len(at)), where=is_vertex)
        vertex = at[:, axis] + np.clip(shift, -0.5, 0.5)
        refined[:, axis] = np.where(is_vertex, vertex, centers[:, axis])
    return np.asarray(refined)
