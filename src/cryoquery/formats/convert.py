"""Picks from one format into another, turned and scaled on the way where the micrographs ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoquery.errors import ConfigError
from cryoquery.formats import (
    Header,
    Optics,
    Picks,
    concatenate,
    match_micrographs,
    micrograph_files,
    micrograph_shape,
    read_header,
    write_coordinates,
)
from cryoquery.formats.columns import object_column
from cryoquery.formats.coordinates import read_parts
from cryoquery.formats.micrograph_star import MicrographStar, read_micrograph_star
from cryoquery.formats.placement import Placement, place
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.formats.writing import Client, shape_of_each


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
    star: MicrographStar | None = None,
    client: Client | None = None,
    format: str | None = None,
    reading: Reading = AS_RECOGNIZED,
) -> Picks:
    """Read picks, write them in another format, and return them.

    Args:
        source: a file or a folder, as `read_coordinates` takes it.
        target: a file or a folder to make, as `write_coordinates` takes it.
        micrographs: a folder of them, their files, or a STAR file that names them. Picks that name none
            get the path of theirs; flips and ``.cs`` need their sizes.
        swap_xy: exchange x and y, before the flips.
        flip_y: count rows from the last one.
        flip_x: count columns from the last one.
        scale: new pixels per old pixel, before all else: 2 where picks were made on micrographs binned by 2.
        pixel_size: Å/px of the micrographs, where the source does not state it or is wrong.
        diameter_px: of the particles in pixels of the micrographs, for picks without one.
        optics: for RELION's table of optics groups, and so is ``star``.
        star: RELION's STAR file of the micrographs.
        client: who will read them, see `write_coordinates`; for RELION all picks name their micrograph by its
            path, and rows may be counted differently from what is returned.
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
    files, listed = _named_files(micrographs)
    star = star or listed
    placed = Placement.of(swap_xy, flip_y, flip_x, scale)
    reading = replace(
        reading,
        micrograph_shape=common_shape(files.values()),
        diameter_px=diameter_px and diameter_px / scale,  # in pixels of the source
    )
    picks = _read_named(Path(source), Path(target), files, reading, rename=client == "relion")
    headers = _headers(picks, files.values())
    shapes = {**picks.shapes, **{name: header.shape for name, header in headers.items()}}
    extents = np.ones((len(picks), 2))
    if flip_y or flip_x:
        extents = shape_of_each(
            picks,
            shapes,
            lambda name: (
                f"{source}: to flip, the size of micrograph {name or Path(source).stem!r} must be known"
            ),
        )
    picks = place(picks, placed, extents)
    stated_in_headers = {header.pixel_size for header in headers.values()}
    in_headers = stated_in_headers.pop() if len(stated_in_headers) == 1 else None
    picks = picks.replace(shapes=shapes, pixel_size=pixel_size or picks.pixel_size or in_headers)
    stated = picks.pixel_size if scale != 1 and star is None else pixel_size
    picks = star.with_optics(picks) if star is not None else picks
    write_coordinates(
        target,
        picks,
        format=format,
        pixel_size=stated,
        optics=optics,
        diameter_px=diameter_px,
        micrograph_shapes=shapes,
        star=star,
        client=client,
    )
    return picks


def common_shape(files: Iterable[Path | str]) -> tuple[int, int] | None:
    """(height, width) in pixels that all micrographs have; None where there are none, or they differ."""
    shapes = set(map(micrograph_shape, files))
    return shapes.pop() if len(shapes) == 1 else None


def _headers(picks: Picks, files: Iterable[Path | str]) -> dict[str, Header]:
    """What the files of micrographs say of themselves, by the names that the picks have for them."""
    names = [name for name in dict.fromkeys([*picks.micrographs.tolist(), *picks.listed]) if name]
    files = list(files)
    found = match_micrographs(names, files) if files else {}
    return {name: read_header(path) for name, path in found.items()}


def _named_files(
    micrographs: Path | str | Iterable[Path | str] | None,
) -> tuple[dict[str, Path], MicrographStar | None]:
    """The files of micrographs by the path that they are known by; and the STAR file that names them."""
    if micrographs is None:
        return {}, None
    if isinstance(micrographs, Path | str) and Path(micrographs).suffix.lower() == ".star":
        star = read_micrograph_star(micrographs)
        return dict(zip(star.names, star.files(), strict=True)), star
    return {path.as_posix(): path for path in micrograph_files(micrographs)}, None


def _read_named(
    source: Path, target: Path, files: Mapping[str, Path], reading: Reading, rename: bool
) -> Picks:
    """Picks with the name of their micrograph: as read, else its path, else its file's where one is needed.

    Args:
        source: of the picks.
        target: where they go.
        files: of the micrographs, by path.
        reading: what the source does not say.
        rename: whether all get the path, also those that were read with a name.
    """
    parts = read_parts(source, reading=reading)
    needed = not target.suffix or target.is_dir() or target.suffix.lower() in (".txt", ".json", ".cs")
    paths = _paths((part.guess for part in parts if part.guess), files)
    named = []
    for part in parts:
        from_file = part.guess if needed or part.path != source else ""
        named.append(part.picks.with_micrograph(part.stated or paths.get(part.guess, from_file)))
    picks = concatenate(named)
    if not rename:
        return picks
    names = [*picks.micrographs.tolist(), *picks.listed]
    paths = _paths(filter(None, names), files)
    known = [paths.get(name, name) for name in names]
    return picks.replace(micrographs=object_column(known[: len(picks)]), listed=tuple(known[len(picks) :]))


def _paths(names: Iterable[str], files: Mapping[str, Path]) -> dict[str, str]:
    """The path of each named micrograph; none where there are no files."""
    found = match_micrographs(names, files) if files else {}
    return {name: path.as_posix() for name, path in found.items()}
