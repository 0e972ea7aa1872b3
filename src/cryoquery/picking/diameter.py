"""Which diameter do the particles have? Candidates compared on a few micrographs, without labels.

Each micrograph is scaled as if each candidate were right, and something says how well that fits: how clearly
the maxima of the blob picker part in particles and the rest (`BLOBS`), or how much skill a network expects of
its own map (`expected_skill`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoquery.data.contact_sheet import RANGE, draw_circles, png
from cryoquery.data.dataset import decode, encode
from cryoquery.data.preprocess import evenly, normalize, remove_hot_pixels, rescale
from cryoquery.errors import DataError
from cryoquery.formats import read_micrograph
from cryoquery.picking import log_picker
from cryoquery.picking.picker import AnyPicker, Picker
from cryoquery.picking.tiles import predict_tiled

MAX_MICROGRAPHS = 4
"""So many micrographs are enough for an estimate."""
SMALLEST, LARGEST = 0.015, 0.2
"""Candidates, in the longer and the shorter side of a micrograph."""
STEP = 1.12
"""Ratio of neighboring candidates."""
MAX_SIDE_PX = 512
"""Of a scaled micrograph so much is looked at, around its middle."""
BLOB_PX = 18.0
BLOB_SCALES = (0.75, 1.0)
"""Fewer discs than the picker's, whose width would hide the diameter; none is wider than the particle."""
NEAR = 0.15
"""Candidates whose score lies so little of the curve's range below the maximum may be right as well."""
FAR = 0.35
"""A stated diameter whose score lies so far below the maximum does not fit."""


@dataclass(frozen=True)
class DiameterScore:
    """Something that says how well a micrograph scaled for a diameter fits it."""

    particle_px: float
    """Particle diameter at which it wants to see the micrograph."""
    fit: Callable[[NDArray[np.float32]], float]
    """From the image (h, w) in standard deviations to how well particles of that size fit, in [0, 1]."""


@dataclass(frozen=True)
class DiameterEstimate:
    """How well each candidate fits, and which one fits best. Lengths are px of the micrographs."""

    candidates_px: NDArray[np.float64]
    """(n,) rising."""
    curves: NDArray[np.float64]
    """(m, n) how well each fits on each micrograph, in [0, 1]."""
    best_px: float
    interval_px: tuple[float, float]
    """Diameters that fit about as well."""
    second_px: float | None
    """Another maximum of the curve, nearly as high; None where there is none."""

    @property
    def curve(self) -> NDArray[np.float64]:
        """(n,) mean over the micrographs."""
        return np.asarray(self.curves.mean(axis=0))

    def __str__(self) -> str:
        """What a person is told."""
        low, high = self.interval_px
        second = "" if self.second_px is None else f", or else {self.second_px:.3g} px"
        return f"{self.best_px:.3g} px ({low:.3g} to {high:.3g} px{second})"

    def warning(self, stated_px: float) -> str:
        """One line where another diameter than ``stated_px`` fits far better, otherwise empty."""
        curve, low, high = self.curve, *self.interval_px
        at = float(np.interp(math.log(stated_px), np.log(self.candidates_px), curve))
        if low / STEP <= stated_px <= high * STEP or curve.max() - at < FAR * np.ptp(curve):
            return ""
        return f"a particle diameter of {stated_px:.3g} px is stated, {self} fits far better"


def estimate_diameter(
    micrographs: Sequence[NDArray[np.floating]],
    score: DiameterScore,
    candidates_px: Sequence[float] | None = None,
    *,
    invert: bool = False,
) -> DiameterEstimate:
    """The particle diameter that fits best on ``micrographs``.

    Args:
        micrographs: (height, width) intensities as recorded, of one pixel size; a few are enough.
        score: what says how well a diameter fits.
        candidates_px: (n,) diameters to compare, rising; None: from 1.5 % of the longer to 20 % of the
            shorter side.
        invert: whether particles are bright.

    Raises:
        DataError: no micrographs, or one that is constant.
    """
    if not micrographs:
        raise DataError("no micrographs to estimate the particle diameter from; give at least one")
    sizes = np.array([pixels.shape for pixels in micrographs])
    first, last = SMALLEST * sizes.max(), LARGEST * sizes.min()
    n = max(round(math.log(last / first) / math.log(STEP)), 1) + 1
    candidates = np.geomspace(first, last, n) if candidates_px is None else np.asarray(candidates_px, float)
    curves = np.array([_curve(-p if invert else p, score, candidates) for p in micrographs])
    return _read_off(candidates, curves)


def blob_separation(image: NDArray[np.float32]) -> float:
    """Variance between particles and the rest over that of all maxima of the blob response, in [0, 1].

    Between the halves of one normal distribution it is 2/π = 0.64.
    """
    response = log_picker.blob_response(image, BLOB_PX * np.array(BLOB_SCALES))
    return log_picker.separation(log_picker.maxima(response, BLOB_PX / 2)[1])


BLOBS = DiameterScore(BLOB_PX, blob_separation)
"""By the blob picker: no network is needed."""


def expected_skill(picker: Picker) -> DiameterScore:
    """By the Brier skill that a network expects of its own map, see `acquisition.image_scores.skill`."""

    def fit(image: NDArray[np.float32]) -> float:
        p = predict_tiled(picker.predictor, encode(image), picker.recipe.image_side).astype(np.float64)
        constant = float(p.mean() * (1 - p.mean()))
        return max(1 - float((p * (1 - p)).mean()) / constant, 0.0) if constant > 1e-6 else 0.0

    return DiameterScore(picker.recipe.particle_px, fit)


def _curve(
    pixels: NDArray[np.floating], score: DiameterScore, candidates: NDArray[np.float64]
) -> list[float]:
    """How well each of the candidates (n,) fits one micrograph."""
    reduced_to = min(score.particle_px / float(candidates[0]), 1.0)
    reduced = rescale(remove_hot_pixels(np.asarray(pixels, np.float32)), reduced_to)
    fits = []
    for diameter in candidates.tolist():
        image = normalize(reduced, score.particle_px / (diameter * reduced_to)).image
        top, left = (max(side - MAX_SIDE_PX, 0) // 2 for side in image.shape)
        part = image[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX]
        fits.append(score.fit(decode(encode(part))))
    return fits


def _read_off(candidates: NDArray[np.float64], curves: NDArray[np.float64]) -> DiameterEstimate:
    """The maximum of the mean curve, by the parabola over the logarithm, and what lies near it."""
    curve, logs = curves.mean(axis=0), np.log(candidates)
    top, last = int(curve.argmax()), len(curve) - 1
    best = logs[top]
    if 0 < top < last:
        before, here, after = curve[top - 1 : top + 2]
        best += (after - before) / (2 * (2 * here - before - after) or 1) * (logs[top + 1] - logs[top])
    near = curve >= curve[top] - NEAR * np.ptp(curve)
    low = high = top
    while low > 0 and near[low - 1]:
        low -= 1
    while high < last and near[high + 1]:
        high += 1
    # Between two candidates the maximum of a micrograph is not known any better.
    own = np.log(candidates[curves.argmax(axis=1)]) if len(curves) > 1 else logs[[top]]
    error = float(own.std() / math.sqrt(len(own)))
    interval = min(logs[low], best - error, best), max(logs[high], best + error, best)
    peaks = [
        i
        for i in range(1, last)
        if not low <= i <= high and near[i] and curve[i] > curve[i - 1] and curve[i] >= curve[i + 1]
    ]
    second = float(candidates[max(peaks, key=lambda i: curve[i])]) if peaks else None
    step = math.sqrt(STEP)
    return DiameterEstimate(
        candidates,
        curves,
        float(math.exp(best)),
        (float(math.exp(interval[0])) / step, float(math.exp(interval[1])) * step),
        second,
    )


def estimate_from_files(
    paths: Sequence[Path], picker: AnyPicker, *, invert: bool | None = None
) -> DiameterEstimate:
    """`estimate_diameter` on at most `MAX_MICROGRAPHS` of the files, by what picks afterwards.

    Raises:
        DataError: a file is missing, damaged, or not a micrograph.
    """
    score = expected_skill(picker) if isinstance(picker, Picker) else BLOBS
    pixels = [read_micrograph(path).pixels for path in evenly(paths, MAX_MICROGRAPHS)]
    return estimate_diameter(pixels, score, invert=picker.recipe.invert if invert is None else invert)


def draw_estimate(estimate: DiameterEstimate, pixels: NDArray[np.floating]) -> bytes:
    """A PNG: how well each diameter fits, and circles of candidate sizes on a part of a micrograph.

    Args:
        estimate: what to draw.
        pixels: (height, width) intensities of one of the micrographs.
    """
    figure = Figure(figsize=(11, 5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for curve in estimate.curves:
        left.plot(estimate.candidates_px, curve, color="#b9bec6", linewidth=1)
    left.plot(estimate.candidates_px, estimate.curve, color="#3b6fb5", linewidth=2)
    left.axvspan(*estimate.interval_px, color="#3b6fb5", alpha=0.15)
    left.axvline(estimate.best_px, color="black", linewidth=1)
    left.set(xscale="log", xlabel="particle diameter, px of the micrograph", ylabel="how well it fits")
    left.set_title(str(estimate), fontsize=10)
    scale = min(20 / estimate.best_px, 8.0)
    image = normalize(np.asarray(pixels, np.float32), scale).image[:MAX_SIDE_PX, :MAX_SIDE_PX]
    right.imshow(image, cmap="gray", vmin=RANGE[0], vmax=RANGE[1])
    response = log_picker.blob_response(image, log_picker.DIAMETERS_PX)
    found = log_picker.find_blobs(response, log_picker.PARTICLE_PX / 2)
    centers = found.centers_yx[found.scores >= 0.5]
    sizes = (estimate.interval_px[0], estimate.best_px, estimate.interval_px[1])
    for i, size in enumerate(sizes):
        draw_circles(right, centers[i::3], np.full(len(centers[i::3]), size * scale), 1.1)
    right.set_axis_off()
    right.set_title("circles of " + ", ".join(f"{size:.3g}" for size in sizes) + " px", fontsize=10)
    return png(figure)
