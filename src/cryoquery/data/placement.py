"""Do coordinates of another program lie where they should: turned the right way, at the right scale?

`orientation` compares the eight orientations of labels that a dataset was made from. Files that
come from elsewhere may also have been made at another binning, and often do not say how large the
particles are. So the contrast at the picks is compared here under orientations × scales, over a
range of diameters, and in units of what the same pattern of picks reaches when it is moved about
the micrograph. Those units hold for crowded patterns and for images with carbon and ice alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.orientation import TIMES_BETTER, contrast_map, judge
from cryoquery.data.preprocess import evenly, normalize, rescale
from cryoquery.errors import DataError
from cryoquery.formats.placement import AS_IN_FILE, ORIENTATIONS, Orientation, Placement, to_scaled

SCALES = (1.0, 1 / 2, 2.0, 1 / 4, 4.0, 1 / 3, 3.0, 1 / 8, 8.0)
"""Binnings that files are usually off by."""
DIAMETERS = tuple(0.012 * 1.5**i for i in range(7))
"""Diameters that are tried where none is known, as fractions of the longer side."""
WORKING_DIAMETER_PX = 10.0
"""A particle's diameter at the scale at which contrast is measured."""
SHIFTS = 8
"""The picks are moved to so many places in each direction to see what chance would give."""
CLEARLY = 8.0
"""Contrast in standard errors that another placement must reach; wrong ones of real sets reach 5."""
TIMES_BETTER_THAN_BESIDE = 1.2
"""Times the contrast of picks beside their particles that picks on them must reach."""
MAX_LOOKED_AT = 8
"""Micrographs whose pixels are looked at."""
MAX_PICKS = 400
"""Picks of one micrograph that are looked at."""
MIN_PICKS = 10
"""With fewer picks in all, nothing is said."""
MIN_OUTSIDE, FAR_OUTSIDE = 0.1, 0.02
"""Where so many of the picks lie so far outside (of the longer side), another scale is certain."""
SCAN = np.arange(0.75, 1.02, 0.005)
"""Scales that are tried after the usual ones, in multiples of that at which the picks fill the image."""
NEAR = 0.015
"""But not those that differ by less than this part from a usual one."""
N_SCANNED = 24
"""Of the placements scanned, so many are looked at closely."""
REFINED = np.arange(0.996, 1.0045, 0.001)
"""And scales around the best of them, in multiples of it."""


Finding = Literal["fits", "misplaced", "outside", "undecided"]


@dataclass(frozen=True)
class PlacementVerdict:
    """What the contrasts say about the placement of picks."""

    finding: Finding
    """They fit as they are; they fit clearly better otherwise; many lie outside of the micrographs, and
    no placement was found that fits; or nothing can be said."""
    best: Placement
    """The placement of the greatest contrast, with respect to the coordinates as in the file."""
    contrast: float
    """Of ``best`` in standard errors; dark particles are negative."""
    contrast_as_is: float
    """The same as the picks are placed now."""
    outside: float
    """Fraction of the picks that lie outside of their micrograph now."""
    n_micrographs: int
    """Micrographs that were looked at."""
    n_picks: int
    """Picks in them."""


@dataclass(frozen=True)
class _View:
    """A micrograph, reduced for each diameter that is tried, and its picks."""

    shape: tuple[int, int]
    points: NDArray[np.float64]
    """(n, 2) as in the file."""
    maps: tuple[tuple[float, NDArray[np.float32]], ...]
    """For each diameter the scale of the map, and the contrast (h, w) at each of its pixels."""


def find_placement(
    picks: Mapping[str, NDArray[np.float64]],
    read: Callable[[str], NDArray[np.float32]],
    *,
    diameter_px: float | None = None,
    box_px: float | None = None,
    applied: Placement = AS_IN_FILE,
) -> PlacementVerdict:
    """Compare the contrast at picks as they are placed now with that of all other placements.

    Args:
        picks: (n, 2) centers (y, x) of each micrograph, as in the file.
        read: the pixels (h, w) of a micrograph by its name in ``picks``; called for at most
            `MAX_LOOKED_AT` of them, evenly chosen.
        diameter_px: of a particle in px of the micrographs; where unknown a range is tried.
        box_px: side of the boxes in px of the file, where picks may be corners of boxes taken for centers, or
            the other way about.
        applied: how the picks are placed now.

    Raises:
        DataError: what ``read`` raises.
    """
    chosen = evenly([name for name in sorted(picks) if len(picks[name])], MAX_LOOKED_AT)
    views = [view for name in chosen for view in _views(read(name), picks[name], diameter_px)]
    n_picks = sum(len(view.points) for view in views)
    outside = _outside(views, applied)
    if n_picks < MIN_PICKS:
        return PlacementVerdict("undecided", applied, 0.0, 0.0, outside, len(views), n_picks)
    others = [Placement(turn, scale) for scale in SCALES for turn in ORIENTATIONS]
    if box_px:
        shifted = [replace(applied, shift_px=sign * box_px / 2) for sign in (1, -1)]
        near, far = np.sort(np.abs(_Strengths(views, shifted).together))[::-1]
        # Of the two sides of picks in the middle of their particles neither is better, at any diameter.
        others += shifted if near >= TIMES_BETTER * far else []
    strengths = _Strengths(views, [applied, *(other for other in others if other != applied)])
    if strengths.finding() == "undecided":
        scanned = _Strengths(views, [applied, *_scan(views)])
        if scanned.finding() == "misplaced":
            found = scanned.placements[scanned.best]
            refined = [Placement(found.orientation, float(found.scale * part)) for part in REFINED]
            strengths = _Strengths(views, [applied, *refined])
    finding, best = strengths.finding(), strengths.best
    if finding == "undecided" and outside >= MIN_OUTSIDE:
        finding = "outside"
    return PlacementVerdict(
        finding,
        strengths.placements[best],
        float(strengths.together[best]),
        float(strengths.together[0]),
        outside,
        len(views),
        n_picks,
    )


def check_placement(
    picks: Mapping[str, NDArray[np.float64]],
    read: Callable[[str], NDArray[np.float32]],
    *,
    diameter_px: float | None = None,
    box_px: float | None = None,
    applied: Placement = AS_IN_FILE,
    source: str = "the picks",
) -> PlacementVerdict:
    """Refuse picks that fit the micrographs clearly better in another placement.

    Args:
        picks: as for `find_placement`, and so are the other arguments.
        read: see there.
        diameter_px: see there.
        box_px: see there.
        applied: see there.
        source: the file, for the message.

    Returns:
        The verdict: "fits" or "undecided".

    Raises:
        DataError: the picks are misplaced, and the message names the options that place them right;
            or what ``read`` raises.
    """
    verdict = find_placement(picks, read, diameter_px=diameter_px, box_px=box_px, applied=applied)
    now = f"with {applied.options}" if applied.options else "as they are"
    if verdict.finding == "outside":
        raise DataError(
            f"{source}: {verdict.outside:.0%} of the picks lie outside of the micrographs {now}; give their "
            "binning with --scale, or --force if they are right"
        )
    if verdict.finding == "misplaced":
        raise misplaced(f"{source}: the picks do not lie on the particles {now}", verdict, applied)
    return verdict


def misplaced(what: str, verdict: PlacementVerdict, applied: Placement) -> DataError:
    """The error that says ``what`` is wrong, by how much, and the options that place the picks right."""
    remedy = f"use {verdict.best.options}" if verdict.best.options else f"leave out {applied.options}"
    return DataError(
        f"{what} (contrast {abs(verdict.contrast_as_is):.0f} standard errors, otherwise "
        f"{abs(verdict.contrast):.0f}); {remedy}, or --force if they are right"
    )


class _Strengths:
    """Contrasts of placements, the first being that of the picks now, in standard errors."""

    def __init__(self, views: Sequence[_View], placements: Sequence[Placement]) -> None:
        self.placements = placements
        each = np.array(
            [
                [
                    [_strength(view, *at_diameter, placed) for placed in placements]
                    for at_diameter in view.maps
                ]
                for view in views
            ]
        )  # (micrographs, diameters, placements)
        together = each.sum(axis=0) / math.sqrt(len(views))
        at = np.argmax(np.abs(together), axis=0), np.arange(len(placements))
        self.together: NDArray[np.float64] = together[at]
        """(placements,) of all micrographs, at the diameter that shows each placement best."""
        self.each: NDArray[np.float64] = each[:, at[0], at[1]]
        """(micrographs, placements) the same by micrograph."""
        self.best = int(np.argmax(np.abs(self.together)))

    def finding(self) -> Finding:
        # Half a particle beside the center, what is dark at it looks bright, and nearly as much.
        beside = self.placements[self.best].shift_px and self.together[0] * self.together[self.best] < 0
        times_better = TIMES_BETTER_THAN_BESIDE if beside else TIMES_BETTER
        is_better, fits = judge(self.each, self.together, CLEARLY, times_better)
        return "misplaced" if is_better else "fits" if fits else "undecided"


def _views(
    pixels: NDArray[np.float32], points: NDArray[np.float64], diameter_px: float | None
) -> Iterator[_View]:
    """The view of one micrograph; none of an image without contrast."""
    shape = (pixels.shape[0], pixels.shape[1])
    diameters = [diameter_px] if diameter_px else [part * max(shape) for part in DIAMETERS]
    largest = min(1.0, WORKING_DIAMETER_PX / diameters[0])
    try:
        image = normalize(pixels, largest).image
    except DataError:
        return
    maps = []
    for diameter in diameters:
        scale = min(largest, WORKING_DIAMETER_PX / diameter)
        reduced = rescale(image, scale / largest)
        maps.append((scale, contrast_map(reduced, diameter * scale / 2).astype(np.float32)))
    points = np.asarray(points, dtype=np.float64)
    yield _View(shape, points[:: -(-len(points) // MAX_PICKS)], tuple(maps))


def _inside(view: _View, points: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.bool_]:
    reach = margin * max(view.shape) + 0.5
    return np.asarray(((points >= -reach) & (points < np.array(view.shape) - 1 + reach)).all(axis=1))


def _outside(views: Sequence[_View], placement: Placement) -> float:
    inside = [_inside(view, placement.apply(view.points, view.shape), FAR_OUTSIDE) for view in views]
    return 1 - float(np.concatenate(inside).mean()) if inside else 0.0


def _strength(view: _View, scale: float, contrast: NDArray[np.float32], placement: Placement) -> float:
    """Mean contrast at the picks over its standard deviation where the pattern is moved (cyclically)."""
    at, share = _pixels(view, scale, contrast, placement)
    if not len(at):
        return 0.0
    height, width = contrast.shape
    steps = (np.arange(SHIFTS) + 0.5) / SHIFTS
    y = (at[:, :1] + (steps * height).astype(np.int64)) % height  # (n, shifts)
    x = (at[:, 1:] + (steps * width).astype(np.int64)) % width
    by_chance = contrast[y[:, :, None], x[:, None, :]].mean(axis=0)  # (shifts, shifts)
    spread = float(by_chance.std())
    if spread == 0:
        return 0.0
    difference = float(contrast[at[:, 0], at[:, 1]].mean()) - float(by_chance.mean())
    return difference / spread * math.sqrt(share)


def _pixels(
    view: _View, scale: float, contrast: NDArray[np.float32], placement: Placement
) -> tuple[NDArray[np.int64], float]:
    """Places (n, 2) of the picks on a map, and the share of the picks that lie on it."""
    points = placement.apply(view.points, view.shape)
    inside = _inside(view, points)
    at = np.rint(to_scaled(points[inside], scale)).astype(np.int64)
    return np.clip(at, 0, np.array(contrast.shape) - 1), float(inside.mean())


def _scan(views: Sequence[_View]) -> list[Placement]:
    """The most promising placements at scales at which the picks just about fill the micrographs."""
    filled = [Placement(turn, _filling(views, turn) * float(part)) for turn in ORIENTATIONS for part in SCAN]
    filled = [p for p in filled if all(abs(p.scale / usual - 1) >= NEAR for usual in SCALES)]
    promise = np.zeros((len(views[0].maps), len(filled)))
    for view in views:
        for row, (scale, contrast) in enumerate(view.maps):
            for column, placement in enumerate(filled):
                at, share = _pixels(view, scale, contrast, placement)
                if len(at):
                    promise[row, column] += contrast[at[:, 0], at[:, 1]].mean() * share
    order = np.argsort(-np.abs(promise).max(axis=0))
    return [filled[i] for i in order[:N_SCANNED]]


def _filling(views: Sequence[_View], turn: Orientation) -> float:
    """The scale at which the outermost pick lies on the edge."""
    scales = []
    for view in views:
        reach = np.maximum(view.points.max(axis=0), 1.0)
        scales.append(float((np.array(view.shape) / (reach[::-1] if turn.swap_xy else reach)).min()))
    return min(scales)
