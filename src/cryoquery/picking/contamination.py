"""Where a micrograph shows carbon, thick ice or aggregates rather than particles in thin ice.

No network is used: the areas are found in the image alone, as departures from its own median that
are wider than a few particles. Picks there need a higher score; they are not forbidden, because crowds
of particles can look like an aggregate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CLIP = 6.0
"""Standard deviations beyond which a pixel is a defect and counts as so much."""
BRIGHTNESS_SIGMA = 0.7
"""Sigma of the low-pass image in particle diameters."""
TEXTURE_SIGMA = 1.0
"""Sigma of the window in which the texture is measured, in particle diameters."""
FINE_SIGMA = 0.25
"""Texture is what is finer than a Gaussian of this sigma, in particle diameters."""
BRIGHTNESS = 0.6
"""The low-pass image is off by so many standard deviations of a pixel; labeled particles hardly reach it."""
TEXTURE = 0.18
"""The texture is so much coarser, as a natural logarithm; films of carbon reach 0.2 to 0.6."""
ROBUST_SIGMAS = 3.0
"""And both by so many standard deviations of the same measure over the micrograph."""
BELOW_PERCENT = 16
"""That standard deviation is the way from the median down to this percentile."""
EDGE = 0.75
"""An area ends where the measure has fallen to so much of its median in the area."""
MIN_AREA = 4.0
"""Smaller areas, in those of a particle, are particles or noise."""


def contaminated(image: NDArray[np.float32], particle_px: float) -> NDArray[np.bool_]:
    """Areas (h, w) of carbon, ice and aggregates.

    An area is darker than the rest in the low-pass image (ice crystals, aggregates, the shadow of a
    film) or has a stronger fine texture (carbon), and is larger than four particles. Particles are
    dark, as `preprocess.normalize` leaves them where they were dark.

    Args:
        image: (h, w) in standard deviations, as `preprocess.normalize` makes it.
        particle_px: particle diameter in pixels of ``image``.
    """
    limited = np.clip(image, -CLIP, CLIP).astype(np.float32)
    low = ndimage.gaussian_filter(limited, BRIGHTNESS_SIGMA * particle_px, mode="nearest")
    fine = limited - ndimage.gaussian_filter(limited, FINE_SIGMA * particle_px, mode="nearest")
    power = ndimage.gaussian_filter(fine**2, TEXTURE_SIGMA * particle_px, mode="nearest")
    texture = 0.5 * np.log(np.maximum(power, np.finfo(np.float32).tiny))
    area_px = MIN_AREA * np.pi / 4 * particle_px**2
    return _stands_out(-low, BRIGHTNESS, area_px) | _stands_out(texture, TEXTURE, area_px)


def _stands_out(measure: NDArray[np.float32], least: float, area_px: float) -> NDArray[np.bool_]:
    """Large areas in which a measure is far above its median, up to where it has fallen to `EDGE`.

    Far is judged by the spread below the median: what is clean lies there. The window in which the
    measure was taken makes an area wider than it is.
    """
    median, low = np.percentile(measure, (50, BELOW_PERCENT))
    above = measure - median
    numbers, n = ndimage.label(above > max(least, ROBUST_SIGMAS * float(median - low)))
    if n == 0:
        return np.zeros(measure.shape, dtype=bool)
    heights = np.append(np.inf, ndimage.median(above, numbers, np.arange(1, n + 1)))
    return _large(above >= EDGE * heights[numbers], area_px)


def _large(mask: NDArray[np.bool_], area_px: float) -> NDArray[np.bool_]:
    """Connected areas of at least ``area_px`` pixels; those at the border may go on beyond it."""
    numbers, n = ndimage.label(mask)
    areas = np.bincount(numbers.ravel(), minlength=n + 1)
    border = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    at_border = np.zeros(n + 1, dtype=bool)
    at_border[border] = True
    kept = np.where(at_border, 2 * areas, areas) >= area_px
    kept[0] = False
    return np.asarray(kept[numbers])
