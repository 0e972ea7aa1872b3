"""Do the labels fit the image as it lies, or do they fit better flipped or transposed?

Coordinates of other programs may count rows from below, columns from the right, or have x and y
exchanged. Then the labels fall on particles by chance only. Particles differ in brightness from
what surrounds them; so the contrast at the labels, under each of the eight orientations of the
square, tells which one is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from cryoquery.formats.placement import ORIENTATIONS, Orientation

ANNULUS = 1.5
"""Outer radius of what surrounds a particle, in radii of the particle."""
CLIP = 3.0
"""Contrasts beyond so many robust standard deviations (ice, carbon edges) count as so many."""
FITS = 4.0
"""Contrast in standard errors from which on an orientation is taken to fit."""
CLEARLY = 6.0
"""What another orientation must reach to be called clearly better; wrong ones of real sets reach 3."""
TIMES_BETTER = 2.0
"""And so many times the contrast of the labels as they are."""
AGREEMENT = 0.75
"""And in so many of the micrographs, the contrast must be greater than that of the labels as they are."""


@dataclass(frozen=True)
class Verdict:
    """What the contrasts of a group say about the orientation of its labels."""

    finding: Literal["fits", "turned", "undecided"]
    """The labels fit as they are; another orientation fits clearly better; or neither can be said."""
    best: Orientation
    """The orientation of the greatest contrast."""
    contrasts: NDArray[np.float64]
    """(8,) of the group in standard errors, in the order of `ORIENTATIONS`; dark particles are negative."""


def orientation_contrast(
    image: NDArray[np.float32],
    centers_yx: NDArray[np.float64],
    diameter_px: float,
    extent: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """Contrast at the centers under each orientation, in standard errors.

    Contrast is the mean within a particle's disc minus that of the surrounding annulus. Its
    standard deviation is taken over the image, so labels at random score about ±1.

    Args:
        image: (h, w) in standard deviations.
        centers_yx: (n, 2) in pixels of the image.
        diameter_px: of a particle in pixels of the image.
        extent: (height, width) about which to turn, where ``image`` is the upper left part of more.

    Returns:
        (8,) in the order of `ORIENTATIONS`. Centers turned out of the micrograph count as 0; those
        in a part that is not there do not count.
    """
    height, width = extent or image.shape
    contrast = contrast_map(image, diameter_px / 2)
    scores = np.zeros(len(ORIENTATIONS))
    for i, orientation in enumerate(ORIENTATIONS):
        points = orientation.apply(np.asarray(centers_yx, dtype=np.float64), (height, width))
        outside = ((points < -0.5) | (points >= np.array([height, width]) - 0.5)).any(axis=1)
        at = np.rint(points).astype(int)
        there = ((at >= 0) & (at < image.shape)).all(axis=1) & ~outside
        n = int(there.sum() + outside.sum())
        if n:
            scores[i] = contrast[at[there, 0], at[there, 1]].sum() / np.sqrt(n)
    return scores


def best_orientation(contrasts: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> Verdict:
    """Judge the micrographs of a group together.

    Args:
        contrasts: (n, 8), `orientation_contrast` of each micrograph.
    """
    each = np.asarray(contrasts, dtype=np.float64).reshape(-1, len(ORIENTATIONS))
    together = each.sum(axis=0) / np.sqrt(max(len(each), 1))
    is_turned, fits = judge(each, together, CLEARLY)
    best = ORIENTATIONS[np.argmax(np.abs(together))]
    return Verdict("turned" if is_turned else "fits" if fits else "undecided", best, together)


def judge(
    each: NDArray[np.float64],
    together: NDArray[np.float64],
    clearly: float,
    times_better: float = TIMES_BETTER,
) -> tuple[bool, bool]:
    """Whether another orientation than the first fits clearly better, and whether the first fits.

    Args:
        each: (n, k) contrasts of the micrographs under each orientation, in standard errors.
        together: (k,) of all of them.
        clearly: what another orientation must reach.
        times_better: and so many times the contrast of the first.
    """
    best = np.argmax(np.abs(together))
    now, most = abs(together[0]), abs(together[best])
    same_way = each[:, best] * np.sign(together[best]) > np.abs(each[:, 0])
    agree = len(each) > 0 and same_way.mean() >= AGREEMENT
    is_better = bool(most >= max(clearly, times_better * now) and agree)
    return is_better, bool(now >= FITS and now * times_better > most)


def contrast_map(image: NDArray[np.float32], radius: float) -> NDArray[np.float64]:
    """Disc minus annulus around every pixel (h, w), clipped, with mean 0 and standard deviation 1."""
    limited: NDArray[np.float64] = np.clip(np.asarray(image, dtype=np.float64), -2 * CLIP, 2 * CLIP)
    inner = _disc(radius, ANNULUS * radius)
    annulus = _disc(ANNULUS * radius, ANNULUS * radius) - inner
    difference = _local_mean(limited, inner) - _local_mean(limited, annulus)
    difference -= np.median(difference)
    sigma = 1.4826 * float(np.median(np.abs(difference)))
    if sigma == 0:
        return np.zeros_like(difference)
    limited = np.clip(difference / sigma, -CLIP, CLIP)
    return np.asarray((limited - limited.mean()) / limited.std())


def _disc(radius: float, reach: float) -> NDArray[np.float64]:
    n = max(1, int(np.ceil(reach)))
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    return np.asarray(y**2 + x**2 <= radius**2, dtype=np.float64)


def _local_mean(image: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a window around every pixel, of what lies inside the image."""
    total = fftconvolve(image, window, mode="same")
    count = fftconvolve(np.ones_like(image), window, mode="same")
    return np.asarray(total / np.maximum(count, 1.0))
