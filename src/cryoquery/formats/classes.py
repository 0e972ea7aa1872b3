"""Of several kinds of things that a file marks, those that are particles, and those to be ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.picks import Picks, Region
from cryoquery.formats.reading import Reading

PARTICLES = frozenset(("particle", "particles"))
"""What a class of particles is called, in any case."""


class Chosen(NamedTuple):
    """What the marks of a file are."""

    particles: NDArray[np.bool_]
    """(n,)."""
    ignored: NDArray[np.bool_]
    """(n,) regions to be ignored."""
    notes: tuple[str, ...]


def choose_particles(
    path: Path, classes: Sequence[str], reading: Reading, known: Mapping[str, str] | None = None
) -> Chosen:
    """Which of the marks of a file are particles, and which are regions to be ignored.

    Particles are those of the classes that are asked for; else of the class that is called particle; else
    all that are not ignored, where they are of one class.

    Args:
        path: for messages.
        classes: (n,) of each mark.
        reading: the classes that are particles or ignored, by name without case, or by number.
        known: all classes of the file, also those without a mark, and their numbers.

    Raises:
        DataError: a class is not known, or there are several and none is called particle.
    """
    counts = Counter(classes)
    number = {**dict.fromkeys(counts, ""), **(known or {})}
    shown = ", ".join(f"{name or 'without a class'} ({counts[name]})" for name in number)

    def named(wanted: Sequence[str]) -> set[str]:
        asked = {name.lower() for name in wanted}
        found = {name for name, own in number.items() if {name.strip().lower(), own} & asked}
        if wanted and not found:
            raise DataError(f"{path}: no class {' or '.join(wanted)}; its classes are {shown}")
        return found

    ignored = named(reading.ignored)
    rest = [name for name in counts if name not in ignored]
    particles = named(reading.classes) or {name for name in number if name.strip().lower() in PARTICLES}
    particles -= ignored
    if not particles and len(rest) > 1:
        raise DataError(f"{path}: several classes, {shown}; say with --class which are particles")
    if is_guess := not particles:
        particles = set(rest)
    left_out = [name for name in rest if name not in particles]
    notes = []
    if left_out:
        what = ", ".join(f"{counts[name]} of class {name or '(none)'}" for name in left_out)
        notes.append(f"{what} left out; --class says which are particles")
    if is_guess and particles and len(number) > 1 and not ignored:
        notes.append(f"class {', '.join(particles)} taken for particles; the file knows {shown}")
    return Chosen(
        np.array([name in particles for name in classes], dtype=bool),
        np.array([name in ignored for name in classes], dtype=bool),
        tuple(notes),
    )


def without_others(picks: Picks, chosen: Chosen) -> Picks:
    """The particles among the marks of a file, with boxes around those to be ignored as regions.

    Raises:
        DataError: one to be ignored has no size.
    """
    others = picks.rows(chosen.ignored)
    regions = []
    for row, (y, x) in enumerate(others.centers_yx.tolist()):
        height, width = (_side(others, name, row) for name in ("Height", "Width"))
        if not (height > 0 and width > 0):
            raise DataError(
                f"{others.micrographs[row] or 'a mark'} at x={x:g}, y={y:g}: a region to be ignored needs a "
                "size; give boxes, or leave out --ignore-class"
            )
        corners = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
        polygon = np.array([y, x]) + np.array(corners) * [height / 2, width / 2]
        regions.append(Region(others.micrographs[row], polygon))
    kept = picks.rows(chosen.particles)
    return kept.replace(notes=(*kept.notes, *chosen.notes), regions=(*kept.regions, *regions))


def _side(picks: Picks, name: str, row: int) -> float:
    """Of the box of a mark in px; NaN where it has none."""
    if name in picks.extra:
        return abs(float(picks.extra[name][row]))
    return float("nan") if picks.diameters_px is None else float(picks.diameters_px[row])
