"""Picks from one format into another, turned and scaled on the way where the micrographs ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoquery.errors import ConfigError
from cryoquery.formats import (
    Optics,
    Picks,
    match_micrographs,
    micrograph_files,
    micrograph_key,
    micrograph_shape,
    read_coordinates,
    write_coordinates,
)
from cryoquery.formats.placement import Placement, place
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.formats.writing import shape_of_each


def convert(
    source: Path | str,
    target: Path | str,
    *,
    micrographs: Path | str | Iterable[Path | str] | None = None,
    swap_xy: bool = False,
    flip_y: bool = False,
    flip_x: bool = False,
    scale: float = 1.0,
    pixel_size: float | None = None,
    diameter_px: float | None = None,
    optics: Optics | None = None,
    format: str | None = None,
    reading: Reading = AS_RECOGNIZED,
) -> Picks:
    """Read picks, write them in another format, and return what was written.

    Args:
        source: a file or a folder, as `read_coordinates` takes it.
        target: a file or a folder to make, as `write_coordinates` takes it.
        micrographs: a folder of them, or their files: for flips and ``.cs``, which need their sizes.
        swap_xy: exchange x and y, before the flips.
        flip_y: count rows from the last one.
        flip_x: count columns from the last one.
        scale: new pixels per old pixel, before all else: 2 where picks were made on micrographs binned by 2.
        pixel_size: Å/px of the micrographs, where the source does not state it or is wrong.
        diameter_px: of the particles in pixels of the micrographs, for picks without one.
        optics: for RELION's table of optics groups.
        format: of the target, where its suffix does not say.
        reading: what a source that can be read in several ways does not say.

    Raises:
        DataError: a file cannot be read or written, a name fits no micrograph or several, or the
            size of a micrograph is needed and not known.
        ConfigError: a number that must be positive is not.
    """
    for name, value in (("pixel_size", pixel_size), ("diameter_px", diameter_px)):
        if value is not None and not 0 < value < np.inf:
            raise ConfigError(f"{name}={value:g}: must be a positive number")
    files = micrograph_files(micrographs) if micrographs is not None else []
    picks = _read_named(Path(source), Path(target), files, reading, diameter_px)
    shapes = known_shapes(picks, files)
    extents = np.ones((len(picks), 2))
    if flip_y or flip_x:
        extents = shape_of_each(
            picks,
            shapes,
            lambda name: (
                f"{source}: to flip, the size of micrograph {name or Path(source).stem!r} must be known"
            ),
        )
    picks = place(picks, Placement.of(swap_xy, flip_y, flip_x, scale), extents)
    picks = picks.replace(shapes=shapes, pixel_size=pixel_size or picks.pixel_size)
    stated = picks.pixel_size if scale != 1 else pixel_size
    write_coordinates(
        target,
        picks,
        format=format,
        pixel_size=stated,
        optics=optics,
        diameter_px=diameter_px,
        micrograph_shapes=shapes,
    )
    return picks


def known_shapes(picks: Picks, files: Iterable[Path | str]) -> dict[str, tuple[int, int]]:
    """(height, width) in pixels by the name of the micrograph: from its header, else as the picks' file says.

    Raises:
        DataError: files are given, and one of the names is none of them or may be several.
    """
    files = list(files)
    if not files:
        return dict(picks.shapes)
    names = dict.fromkeys([*picks.micrographs.tolist(), *picks.listed])
    found = match_micrographs((name for name in names if name), files)
    return {**picks.shapes, **{name: micrograph_shape(path) for name, path in found.items()}}


def common_shape(files: Iterable[Path | str]) -> tuple[int, int] | None:
    """(height, width) in pixels that all micrographs have; None where there are none, or they differ."""
    shapes = set(map(micrograph_shape, files))
    return shapes.pop() if len(shapes) == 1 else None


def _read_named(
    source: Path, target: Path, files: list[Path], reading: Reading, diameter_px: float | None
) -> Picks:
    """Picks with the name of their micrograph: that of its file, else their own file's if one is needed."""
    reading = replace(reading, diameter_px=diameter_px)
    picks = read_coordinates(source, micrograph_shape=common_shape(files), reading=reading)
    if picks.micrographs.all() and (len(picks) or picks.listed):
        return picks
    name = micrograph_key(source.name)
    if files:
        return picks.with_micrograph(match_micrographs([name], files)[name].as_posix())
    needed = not target.suffix or target.is_dir() or target.suffix.lower() in (".txt", ".json", ".cs")
    return picks.with_micrograph(name) if needed else picks
