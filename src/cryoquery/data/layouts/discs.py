"""Centers and diameter of the particles that a mask of discs was drawn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cryoquery.data.preprocess import apart

WORKING_SIZE = 1536
"""Longer side in px to which a mask is reduced before discs are looked for."""
ISOLATED_FILL = (0.85, 1.18)
"""Area of a component over the area of its largest inner disc, where that disc is all of it."""
SMALLEST_RADIUS = 2.0
"""Discs of a smaller radius (px of the reduced mask) are specks."""


def find_discs(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Recover the discs of a mask: (n, 3) rows (y, x, diameter) in pixels of its micrograph.

    All discs of a mask are taken to have one diameter. It is that of the components that are one
    disc. Centers are the peaks of the distance transform, so touching and overlapping discs come
    apart as long as their centers are about 0.7 of a diameter away from each other. Discs cut by the edge
    are found as if the outside of the micrograph belonged to the mask.

    Args:
        mask: (h, w) of the micrograph, or of a reduced version of it.
        shape: (height, width) of the micrograph in recorded pixels.
    """
    factor = max(1, round(max(mask.shape) / WORKING_SIZE))
    reduced = _reduce(mask, factor)
    distance = _inner_distance(reduced)
    radius = _radius(reduced, distance)
    if radius is None:
        return np.empty((0, 3))
    peaks = _peaks(distance, radius)
    at = np.rint(peaks).astype(int)
    centers = peaks[np.sort(apart(peaks, distance[at[:, 0], at[:, 1]], 0.6 * radius))]
    per_pixel = np.array([shape[0] / mask.shape[0], shape[1] / mask.shape[1]]) * factor
    points = (centers + 0.5) * per_pixel - 0.5
    diameter = 2 * radius * float(per_pixel.mean())
    return np.column_stack([points, np.full(len(points), diameter)])


def _reduce(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    height, width = (n - n % factor for n in mask.shape)
    blocks = mask[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3)) >= 0.5)


def _inner_distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance (h, w) of each pixel of the mask to its border, which runs between pixel centers."""
    if mask.all():
        return np.zeros(mask.shape)
    distance = ndimage.distance_transform_edt(mask)
    return np.asarray(np.where(mask, distance - 0.5, 0.0))


def _radius(mask: NDArray[np.bool_], distance: NDArray[np.float64]) -> float | None:
    """The common radius in px: the median over single discs, or over all peaks if there are none."""
    labels, n_components = ndimage.label(mask)
    if not n_components:
        return None
    index = np.arange(1, n_components + 1)
    peaks = np.asarray(ndimage.maximum(distance, labels, index))
    areas = np.bincount(labels.ravel(), minlength=n_components + 1)[1:]
    inside = np.array([_is_inside(box, mask.shape) for box in ndimage.find_objects(labels)])
    large = peaks >= SMALLEST_RADIUS
    fill = areas / (np.pi * np.maximum(peaks, 0.5) ** 2)
    isolated = inside & large & (fill > ISOLATED_FILL[0]) & (fill < ISOLATED_FILL[1])
    if isolated.sum() >= 3:
        return float(np.sqrt(np.median(areas[isolated]) / np.pi))
    if not large.any():
        return None
    ridge = (distance == ndimage.maximum_filter(distance, 3)) & (distance >= SMALLEST_RADIUS)
    return float(np.median(distance[ridge]))


def _is_inside(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return all(part.start > 0 and part.stop < n for part, n in zip(box, shape, strict=True))


def _peaks(distance: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Local maxima (n, 2) of the smoothed distance; a flat top counts once, at its middle."""
    smooth = ndimage.gaussian_filter(distance, max(0.12 * radius, 0.5))
    top = ndimage.maximum_filter(smooth, size=2 * max(1, round(0.3 * radius)) + 1)
    plateau = (smooth >= top - 1e-9) & (distance >= 0.6 * radius)
    labels, n_peaks = ndimage.label(plateau, structure=np.ones((3, 3)))
    if not n_peaks:
        return np.empty((0, 2))
    return np.array(ndimage.center_of_mass(plateau, labels, np.arange(1, n_peaks + 1))).reshape(-1, 2)
