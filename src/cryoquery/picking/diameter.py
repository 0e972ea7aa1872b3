"""Which diameter do the particles have? Candidates compared on a few micrographs, without labels.

Each micrograph is scaled as if each candidate were right, and a network says how much skill it expects of its
own map (Brier skill, see `acquisition.image_scores.skill`). Where the stated diameter is too small the skill
breaks down; where it is too large it falls slowly, since a particle is a blob from afar as well. So of the
range of diameters that fit about equally well one of the smaller is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoquery.data.contact_sheet import RANGE, draw_circles, png
from cryoquery.data.dataset import Dataset, encode
from cryoquery.data.inspection import micrographs_by_group, stitch
from cryoquery.data.preprocess import evenly, normalize, remove_hot_pixels, rescale
from cryoquery.errors import DataError
from cryoquery.formats import read_micrograph
from cryoquery.picking.picker import Picker, PickOptions
from cryoquery.picking.tiles import predict_tiled

MAX_MICROGRAPHS = 3
"""So many micrographs are enough for an estimate."""
SMALLEST, LARGEST = 0.015, 0.15
"""Candidates, in the longer and the shorter side of a micrograph."""
STEP = 1.15
"""Ratio of neighboring candidates."""
MAX_SIDE_PX = 320
"""Of a scaled micrograph so much is looked at, around its middle."""
EQUAL, WORSE = 0.01, 0.03
"""Diameters whose skill lies within the one of the best are equally good; beyond the other none fits."""
MIN_SKILL = 0.75
"""A network that expects less than this at its best knows too little to contradict a person."""
PART_OF_EQUAL = 0.25
"""How far into the range of the equally good ones, on a logarithmic scale, the estimate lies."""


@dataclass(frozen=True)
class DiameterEstimate:
    """How well each candidate fits, and which one fits best. Lengths are px of the micrographs."""

    candidates_px: NDArray[np.float64]
    """(n,) rising."""
    curves: NDArray[np.float64]
    """(m, n) skill that the network expects of itself on each micrograph, at most 1."""
    best_px: float
    interval_px: tuple[float, float]
    """Diameters that fit about as well."""

    @property
    def curve(self) -> NDArray[np.float64]:
        """(n,) mean over the micrographs."""
        return np.asarray(self.curves.mean(axis=0))

    def __str__(self) -> str:
        """What a person is told."""
        low, high = self.interval_px
        return f"{self.best_px:.3g} px ({low:.3g} to {high:.3g} px)"

    def enlarged(self, factor: float) -> DiameterEstimate:
        """The same in pixels of which ``factor`` times as many make up a length."""
        low, high = self.interval_px
        return replace(
            self,
            candidates_px=self.candidates_px * factor,
            best_px=self.best_px * factor,
            interval_px=(low * factor, high * factor),
        )

    def warning(self, stated_px: float) -> str:
        """One line where another diameter than ``stated_px`` fits far better, otherwise empty."""
        low, high = self.interval_px
        if self.curve.max() < MIN_SKILL or low / math.sqrt(STEP) <= stated_px <= high * math.sqrt(STEP):
            return ""
        return f"a particle diameter of {stated_px:.3g} px is stated, {self} fits far better"


def estimate_diameter(
    micrographs: Sequence[NDArray[np.floating]],
    picker: Picker,
    candidates_px: Sequence[float] | None = None,
    *,
    invert: bool = False,
) -> DiameterEstimate:
    """The particle diameter that fits best on ``micrographs``.

    Args:
        micrographs: (height, width) intensities as recorded, of one pixel size; a few are enough.
        picker: a network that knows particles of many kinds, such as ``load_picker("general")``.
        candidates_px: (n,) diameters to compare, rising; None: from 1.5 % of the longer to 15 % of the
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
    curves = np.array([_curve(-p if invert else p, picker, candidates) for p in micrographs])
    return _read_off(candidates, curves)


def expected_skill(probability: NDArray[np.floating]) -> float:
    """Brier skill that a calibrated network expects of its map (h, w): 1 − mean p (1 − p) / (p̄ (1 − p̄))."""
    p = probability.astype(np.float64)
    constant = float(p.mean() * (1 - p.mean()))
    return max(1 - float((p * (1 - p)).mean()) / constant, 0.0) if constant > 1e-6 else 0.0


def _curve(pixels: NDArray[np.floating], picker: Picker, candidates: NDArray[np.float64]) -> list[float]:
    """The skill at each of the candidates (n,) on one micrograph."""
    particle_px = picker.recipe.particle_px
    reduced_to = min(particle_px / float(candidates[0]), 1.0)
    reduced = rescale(remove_hot_pixels(np.asarray(pixels, np.float32)), reduced_to)
    skills = []
    for diameter in candidates.tolist():
        image = normalize(reduced, particle_px / (diameter * reduced_to)).image
        top, left = (max(side - MAX_SIDE_PX, 0) // 2 for side in image.shape)
        levels = encode(image[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX])
        skills.append(expected_skill(predict_tiled(picker.predictor, levels, picker.recipe.image_side)))
    return skills


def _read_off(candidates: NDArray[np.float64], curves: NDArray[np.float64]) -> DiameterEstimate:
    """A quarter into the range in which the mean curve lies within `EQUAL` of its maximum."""
    curve, logs = curves.mean(axis=0), np.log(candidates)

    def reached(level: float) -> float:
        first = int(np.argmax(curve >= level))
        before = max(first - 1, 0)
        return float(np.exp(np.interp(level, curve[[before, first]], logs[[before, first]])))

    level = curve.max() - EQUAL
    last = int(curve.argmax())
    while last + 1 < len(curve) and curve[last + 1] >= level:
        last += 1
    beyond = min(last + 1, len(curve) - 1)
    left = float(np.exp(np.interp(-level, -curve[[last, beyond]], logs[[last, beyond]])))
    best = reached(level) ** (1 - PART_OF_EQUAL) * left**PART_OF_EQUAL
    return DiameterEstimate(candidates, curves, best, (reached(curve.max() - WORSE), left))


def estimate_from_files(
    paths: Sequence[Path], picker: Picker, *, invert: bool | None = None
) -> DiameterEstimate:
    """`estimate_diameter` on at most `MAX_MICROGRAPHS` of the files.

    Raises:
        DataError: a file is missing, damaged, or not a micrograph.
    """
    pixels = [read_micrograph(path).pixels for path in evenly(paths, MAX_MICROGRAPHS)]
    return estimate_diameter(pixels, picker, invert=picker.recipe.invert if invert is None else invert)


def diameter_warnings(dataset: Dataset, picker: Picker) -> list[str]:
    """A line for each group whose particles look far smaller or larger than its labels state.

    Candidates reach from half to twice what is stated; a few micrographs of each group are looked at.
    """
    warnings = []
    for group, micrographs in micrographs_by_group(dataset).items():
        few = evenly(list(micrographs.values()), MAX_MICROGRAPHS)
        looked_at = [stitch(dataset, rows) for rows in few]
        stated = float(np.median([one.diameter_px for one in looked_at]))
        scale = dataset.records[few[0][0]].scale
        candidates = np.geomspace(stated / 2, 2 * stated, round(math.log(4) / math.log(STEP)) + 1)
        try:
            estimate = estimate_diameter([one.image for one in looked_at], picker, candidates.tolist())
        except DataError:  # a constant image, which is told elsewhere
            continue
        if warning := estimate.enlarged(1 / scale).warning(stated / scale):
            warnings.append(f"group {group}: {warning}")
    return warnings


def draw_estimate(estimate: DiameterEstimate, pixels: NDArray[np.floating], picker: Picker) -> bytes:
    """A PNG: how well each diameter fits, and circles of candidate sizes on a part of a micrograph.

    Args:
        estimate: what to draw.
        pixels: (height, width) intensities of one of the micrographs.
        picker: finds the places of the circles.
    """
    figure = Figure(figsize=(11, 5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for curve in estimate.curves:
        left.plot(estimate.candidates_px, curve, color="#b9bec6", linewidth=1)
    left.plot(estimate.candidates_px, estimate.curve, color="#3b6fb5", linewidth=2)
    left.axvspan(*estimate.interval_px, color="#3b6fb5", alpha=0.15)
    left.axvline(estimate.best_px, color="black", linewidth=1)
    left.set(xscale="log", xlabel="particle diameter, px of the micrograph", ylabel="expected skill")
    left.set_title(str(estimate), fontsize=10)
    scale = min(20 / estimate.best_px, 8.0)
    image = normalize(np.asarray(pixels, np.float32), scale).image[:MAX_SIDE_PX, :MAX_SIDE_PX]
    right.imshow(image, cmap="gray", vmin=RANGE[0], vmax=RANGE[1])
    picks = picker.pick(pixels, PickOptions(diameter_px=estimate.best_px), None).picks
    centers = (picks.centers_yx + 0.5) * scale - 0.5
    centers = centers[(centers < np.array(image.shape)).all(axis=1)]
    sizes = (estimate.interval_px[0], estimate.best_px, estimate.interval_px[1])
    for i, size in enumerate(sizes):
        draw_circles(right, centers[i::3], np.full(len(centers[i::3]), size * scale), 1.1)
    right.set_axis_off()
    right.set_title("circles of " + ", ".join(f"{size:.3g}" for size in sizes) + " px", fontsize=10)
    return png(figure)
