"""Dark discs in a micrograph, found without a network: the classical blob picker at a stated diameter.

The filter is the mean of the ring around a disc minus the mean in the disc, the sharp form of the negative
Laplacian of Gaussian (after RELION's ``--LoG``, doi:10.7554/eLife.42166): it keeps to the outline of a
particle, also of a hollow one, where the Laplacian of Gaussian weighs its middle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cryoquery.data.preprocess import MAD_TO_SIGMA, apart
from cryoquery.picking.peaks import Detections

PARTICLE_PX = 20.0
"""Particle diameter in px of the image that is searched."""
SCALES = (0.64, 0.8, 1.0, 1.25)
"""Diameters of the discs in particle diameters: what is seen of a particle is often less than its extent."""
DIAMETERS_PX = PARTICLE_PX * np.array(SCALES)
RING = 1.25
"""Outer diameter of the ring in diameters of the disc."""
HIGHEST = 0.98
"""Maxima above this quantile count as high as it, where they are parted: dirt towers above particles."""


def blob_response(image: NDArray[np.float32], diameters_px: NDArray[np.floating]) -> NDArray[np.float32]:
    """How much each place (h, w) looks like the middle of a dark disc, in the response's standard deviations.

    The largest over ``diameters_px`` of the filter's response, each diameter in its own robust standard
    deviations over the image: so neither the large nor the small ones win by the noise alone.

    Args:
        image: (h, w) in standard deviations, particles dark.
        diameters_px: (n,) diameters of the discs.
    """
    responses = [_standardized(_filtered(image, float(d))) for d in diameters_px]
    return np.asarray(np.max(responses, axis=0))


def find_blobs(response: NDArray[np.float32], min_distance_px: float) -> Detections:
    """The maxima of a `blob_response` (h, w) above 0, with scores h / (h + h₀) in (0, 1) for heights h.

    The height h₀ that scores 1/2 parts the maxima of this micrograph in two (`between_two_kinds`).
    """
    centers, heights = maxima(response, min_distance_px)
    if not len(centers):
        return Detections(centers, heights)
    return Detections(centers, heights / (heights + _part(heights)[0]))


def maxima(
    response: NDArray[np.float32], min_distance_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centers (n, 2) and heights (n,) of the maxima above 0, the highest first."""
    peaks = (response == ndimage.maximum_filter(response, size=3)) & (response > 0)
    centers = np.argwhere(peaks).astype(np.float64)
    heights = response[peaks].astype(np.float64)
    if len(centers):
        kept = apart(centers, heights, min_distance_px)
        centers, heights = centers[kept], heights[kept]
    return centers, heights


def between_two_kinds(values: NDArray[np.float64]) -> tuple[float, float]:
    """The value that parts ``values`` (n,) in two groups with the largest variance between them (Otsu).

    Returns:
        that value, and the variance between the groups over all variance.
    """
    rising = np.sort(values)
    n = len(rising)
    if n < 2 or rising[0] == rising[-1]:
        return float(rising[0]), 0.0
    below = np.arange(1, n)
    sums = np.cumsum(rising)
    difference = (sums[-1] - sums[:-1]) / (n - below) - sums[:-1] / below
    variance = below * (n - below) / n**2 * difference**2
    best = int(np.argmax(variance))
    return float(rising[best] + rising[best + 1]) / 2, float(variance[best] / rising.var())


def _part(heights: NDArray[np.float64]) -> tuple[float, float]:
    return between_two_kinds(np.minimum(heights, np.quantile(heights, HIGHEST)))


def _filtered(image: NDArray[np.float32], diameter_px: float) -> NDArray[np.float32]:
    """Mean of the ring minus mean of the disc around each pixel (h, w); mirrored at the edges."""
    half = int(np.ceil(RING * diameter_px / 2)) + 1
    distance = np.hypot(*np.ogrid[-half : half + 1, -half : half + 1])
    disc, both = (np.clip(0.5 + d / 2 - distance, 0, 1) for d in (diameter_px, RING * diameter_px))
    kernel = (both - disc) / (both - disc).sum() - disc / disc.sum()
    padded = np.pad(image, half, mode="symmetric")
    shape = [fft.next_fast_len(n, real=True) for n in padded.shape]
    spectrum = fft.rfft2(padded, shape) * fft.rfft2(kernel.astype(np.float32), shape)
    height, width = image.shape
    return np.asarray(fft.irfft2(spectrum, shape)[2 * half : 2 * half + height, 2 * half : 2 * half + width])


def _standardized(response: NDArray[np.float32]) -> NDArray[np.float32]:
    centered = response - np.median(response)
    spread = MAD_TO_SIGMA * float(np.median(np.abs(centered))) or float(centered.std()) or 1.0
    return np.asarray(centered / np.float32(spread))
