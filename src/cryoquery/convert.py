"""Picks from one format into another, turned and scaled on the way where the micrographs ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import (
    MICROGRAPH_SUFFIXES,
    Optics,
    Picks,
    match_micrographs,
    micrograph_key,
    micrograph_shape,
    read_coordinates,
    write_coordinates,
)
from cryoquery.formats.relion import STATING_PIXEL_SIZE
from cryoquery.preprocess import to_scaled

LENGTHS_IN_EXTRA = ("Width", "Height", "EstWidth", "EstHeight")
"""Columns of crYOLO's boxes that are lengths in pixels."""


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
) -> Picks:
    """Read picks, write them in another format, and return what was written.

    Args:
        source: a file or a folder, as `read_coordinates` takes it.
        target: a file or a folder to make, as `write_coordinates` takes it.
        micrographs: a folder of them, or their files: for flips and ``.cs``, which need their sizes.
        swap_xy: as `turn` takes it.
        flip_y: as `turn` takes it.
        flip_x: as `turn` takes it.
        scale: as `turn` takes it: 2 where picks were made on micrographs binned by 2.
        pixel_size: Å/px of the micrographs, where the source does not state it or is wrong.
        diameter_px: of the particles in pixels of the micrographs, for picks without one.
        optics: for RELION's table of optics groups.
        format: of the target, where its suffix does not say.

    Raises:
        DataError: a file cannot be read or written, a name fits no micrograph or several, or the
            size of a micrograph is needed and not known.
        ConfigError: as `turn`.
    """
    for name, value in (("pixel_size", pixel_size), ("diameter_px", diameter_px)):
        if value is not None and not 0 < value < np.inf:
            raise ConfigError(f"{name}={value:g}: must be a positive number")
    files = micrograph_files(micrographs) if micrographs is not None else []
    picks = _read_named(Path(source), Path(target), files)
    shapes = known_shapes(picks, files)
    extents = _extents(picks, shapes, Path(source)) if flip_y or flip_x else np.ones((len(picks), 2))
    picks = turn(picks, extents, swap_xy=swap_xy, flip_y=flip_y, flip_x=flip_x, scale=scale)
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


def turn(
    picks: Picks,
    extents: NDArray[np.float64] | tuple[int, int],
    *,
    swap_xy: bool = False,
    flip_y: bool = False,
    flip_x: bool = False,
    scale: float = 1.0,
) -> Picks:
    """Scale picks, then exchange x and y, then flip them: the order of the import's options.

    Scaling keeps the edges of the micrograph where they are, as binning does: pixels have a size.

    Args:
        picks: of one micrograph or of many.
        extents: (height, width) in pixels of the micrograph that the turned picks are for, or (n, 2)
            of the micrograph of each.
        swap_xy: exchange x and y.
        flip_y: count rows from the last one.
        flip_x: count columns from the last one.
        scale: new pixels per old pixel.

    Raises:
        ConfigError: ``scale`` is not a positive number.
    """
    if not 0 < scale < np.inf:
        raise ConfigError(f"scale={scale}: must be a positive number")
    centers = to_scaled(picks.centers_yx, scale)
    if swap_xy:
        centers = centers[:, ::-1]
    extent = np.asarray(extents, dtype=np.float64)
    flipped = np.where([flip_y, flip_x], extent - 1 - centers, centers)
    if not np.array_equal(flipped, picks.centers_yx):
        # COCO's outlines would stay where they were.
        picks = picks.replace(extra={n: column for n, column in picks.extra.items() if n != "segmentation"})
    if scale == 1:
        return picks.replace(centers_yx=flipped)
    return picks.replace(
        centers_yx=flipped,
        diameters_px=None if picks.diameters_px is None else picks.diameters_px * scale,
        extra={
            name: _scaled(name, column, scale)
            for name, column in picks.extra.items()
            if name not in STATING_PIXEL_SIZE
        },
        pixel_size=None if picks.pixel_size is None else picks.pixel_size / scale,
        optics={name: column for name, column in picks.optics.items() if "PixelSize" not in name},
        shapes={name: (round(h * scale), round(w * scale)) for name, (h, w) in picks.shapes.items()},
    )


def _scaled(name: str, column: NDArray[Any], scale: float) -> NDArray[Any]:
    """A column of lengths in the new pixels; other columns, and lengths that are not there, as they are."""
    if name not in LENGTHS_IN_EXTRA:
        return column
    try:
        return column.astype(np.float64) * scale
    except (ValueError, TypeError):
        return column


def micrograph_files(micrographs: Path | str | Iterable[Path | str]) -> list[Path]:
    """The files of micrographs: those given, or those in the folder given, sorted.

    Raises:
        DataError: the folder is missing or holds none.
    """
    if not isinstance(micrographs, Path | str):
        return [Path(path) for path in micrographs]
    folder = Path(micrographs)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of micrographs")
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(MICROGRAPH_SUFFIXES))
    if not files:
        raise DataError(f"{folder}: no micrographs in it; they end in {' '.join(MICROGRAPH_SUFFIXES)}")
    return files


def known_shapes(picks: Picks, files: Iterable[Path | str]) -> dict[str, tuple[int, int]]:
    """(height, width) in pixels by the name of the micrograph: from its header, else as the picks' file says.

    Raises:
        DataError: files are given, and one of the names is none of them or may be several.
    """
    files = list(files)
    if not files:
        return dict(picks.shapes)
    names = dict.fromkeys(picks.micrographs.tolist())
    found = match_micrographs((name for name in names if name), files)
    return {**picks.shapes, **{name: micrograph_shape(path) for name, path in found.items()}}


def _common_shape(files: list[Path]) -> tuple[int, int] | None:
    """The size of a single micrograph, for a ``.cs`` file that does not state it."""
    return micrograph_shape(files[0]) if len(files) == 1 else None


def _read_named(source: Path, target: Path, files: list[Path]) -> Picks:
    """Picks with the name of their micrograph: that of its file, else their own file's if one is needed."""
    picks = read_coordinates(source, micrograph_shape=_common_shape(files))
    if picks.micrographs.all():
        return picks
    name = micrograph_key(source.name)
    if files:
        return picks.with_micrograph(match_micrographs([name], files)[name].as_posix())
    needed = not target.suffix or target.is_dir() or target.suffix.lower() in (".txt", ".json", ".cs")
    return picks.with_micrograph(name) if needed else picks


def _extents(picks: Picks, shapes: dict[str, tuple[int, int]], source: Path) -> NDArray[np.float64]:
    """(n, 2) height and width of the micrograph of each pick."""
    names = picks.micrographs.tolist()
    missing = next((name for name in dict.fromkeys(names) if name not in shapes), None)
    if missing is not None:
        raise DataError(
            f"{source}: to flip, the size of micrograph {missing or source.stem!r} must be known; "
            "give --micrographs"
        )
    return np.array([shapes[name] for name in names], dtype=np.float64).reshape(-1, 2)
