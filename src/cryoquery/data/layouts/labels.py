"""Particles of a micrograph from files of coordinates, one for each or one that several share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.layouts.match import MatchedFiles, shorten
from cryoquery.data.layouts.options import SourceOptions
from cryoquery.errors import DataError
from cryoquery.formats import Header, Picks, concatenate, match_micrographs, read_coordinates
from cryoquery.formats.reading import AS_RECOGNIZED, Reading

SharedPicks = Mapping[Path, Mapping[Path, Picks]]
"""Picks by the file of coordinates and by the micrograph's file."""


def read_shared(
    labeled: Sequence[MatchedFiles], reading: Reading = AS_RECOGNIZED
) -> dict[Path, dict[Path, Picks]]:
    """Files of coordinates that several micrographs share, read once: the picks of each image by file."""
    images: dict[Path, list[Path]] = defaultdict(list)
    for found in labeled:
        if found.coordinates is not None:
            images[found.coordinates].append(found.image)
    shared = {}
    for path, own in images.items():
        if len(own) > 1:
            parts = read_coordinates(path, reading=reading).by_micrograph()
            matched = match_micrographs(parts, own, allow_missing=True)
            by_image: dict[Path, list[Picks]] = defaultdict(list)
            for name, image in matched.items():
                by_image[image].append(parts[name])
            shared[path] = {image: concatenate(some) for image, some in by_image.items()}
    return shared


def without_unnamed(
    labeled: Sequence[MatchedFiles], shared: SharedPicks
) -> tuple[list[MatchedFiles], list[str]]:
    """Leave out micrographs that a shared file does not name: it cannot say *no particles*."""
    kept, left_out = [], defaultdict(list)
    for found in labeled:
        by_image = shared.get(found.coordinates) if found.coordinates is not None else None
        if by_image is None or found.image in by_image:
            kept.append(found)
        elif found.mask is not None:
            kept.append(replace(found, coordinates=None))
        else:
            left_out[found.coordinates].append(found.image.name)
    if labeled and not kept:
        raise DataError(f"{labeled[0].coordinates}: names none of the micrographs; check the names in it")
    notes = [
        f"{path}: micrographs that it does not name left out: {shorten(n)}" for path, n in left_out.items()
    ]
    return kept, notes


def read_particles(
    found: MatchedFiles,
    header: Header,
    diameter: float | None,
    options: SourceOptions,
    shared: SharedPicks,
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Rows (n, 3) of (y, x, diameter) in pixels, turned as the options say; and notes.

    Args:
        found: a micrograph with a file of coordinates.
        header: of the micrograph.
        diameter: in pixels, where it is said rather than read.
        options: how the source is read.
        shared: what `read_shared` read.

    Raises:
        DataError: as `read_coordinates`, there is no diameter or one that is not positive, or the file
            is of other micrographs.
    """
    assert found.coordinates is not None, "only micrographs with coordinates come here"
    if found.coordinates in shared:
        picks = shared[found.coordinates][found.image]
    else:
        everything = read_coordinates(
            found.coordinates,
            micrograph_shape=header.shape,
            reading=replace(options.reading, diameter_px=diameter or found.diameter_px),
        )
        picks = _own_picks(found, everything)
    diameters = picks.diameters_px
    if diameters is None:
        given = diameter or found.diameter_px
        if given is None and len(picks):
            raise DataError(
                f"{found.coordinates}: no diameters in it; give --diameter-px or --diameter-angstrom"
            )
        diameters = np.full(len(picks), given or 0.0)
    elif found.diameter_px is not None:
        diameters = np.where(np.isnan(diameters), found.diameter_px, diameters)
    particles = np.column_stack([picks.centers_yx, diameters])
    if found.dummy_boxes:
        particles = particles[particles[:, :2].any(axis=1)]
    particles[:, 2] = diameter or options.scale * particles[:, 2]
    wrong = ~(particles[:, 2] > 0)
    if wrong.any():
        bad = float(particles[wrong][0, 2])
        raise DataError(f"{found.coordinates}: a diameter of {bad:g} px; give --diameter-px")
    particles[:, :2] = options.placement.apply(particles[:, :2], header.shape)
    return particles, picks.notes


def _own_picks(found: MatchedFiles, picks: Picks) -> Picks:
    """Those picks of a file that are of this micrograph; all, where the file names none."""
    names = dict.fromkeys(name for name in (*picks.micrographs.tolist(), *picks.listed) if name)
    if not names:
        return picks
    own = match_micrographs(names, [found.image], allow_missing=True)
    if not own:
        raise DataError(
            f"{found.coordinates}: picks of {len(names)} micrographs ({next(iter(names))!r}, …), none named "
            f"{found.name}; rename it"
        )
    return picks.rows(np.array([name in own for name in picks.micrographs.tolist()], dtype=bool))
