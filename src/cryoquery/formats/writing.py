"""Picks written to a file of any format, or to a folder with one file per micrograph."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats import boxes, coco, cryosparc, relion, tables
from cryoquery.formats.names import (
    COORDINATE_FORMATS,
    COORDINATE_SUFFIXES,
    FORMAT_OF,
    ONE_PER_FILE,
    SUFFIX_OF,
    micrograph_stem,
)
from cryoquery.formats.picks import Picks
from cryoquery.formats.relion import Optics
from cryoquery.storage.atomic import remove_leftovers, staged_directory, write_bytes

PICK_ENDING = "_autopick"
JOB_FOLDER = re.compile(r"^(?:.*/)?[^/]+/job\d{3,}/")
"""What RELION puts before the name of a file that a job wrote."""


def write_coordinates(
    path: Path | str,
    picks: Picks | NDArray[np.floating],
    *,
    format: str | None = None,
    pixel_size: float | None = None,
    optics: Optics | None = None,
    diameter_px: float | None = None,
    micrograph_shapes: Mapping[str, tuple[int, int]] | tuple[int, int] | None = None,
) -> None:
    """Write picks, whole or not at all.

    Args:
        path: a file, whose suffix says the format; or, without a suffix, a folder to make, which gets
            one file per micrograph. In RELION's format this is the folder of a picking job.
        picks: or an array (n, 2) or (n, 3) of (y, x[, diameter]) in pixels.
        format: one of `COORDINATE_FORMATS`; for a folder RELION's where it is not said.
        pixel_size: Å/px of the micrographs, for RELION's table of optics groups and for ``.cs``.
        optics: voltage and the like, for RELION's table of optics groups.
        diameter_px: for picks without one, where the format has boxes.
        micrograph_shapes: (height, width) in pixels of all, or of each by name; ``.cs`` needs them.

    Raises:
        DataError: the format is unknown, cannot hold several micrographs in a file, or lacks what it
            needs; or the folder is not empty.

    Examples:
        >>> from cryoquery.formats import read_coordinates
        >>> picks = Picks.of([[35.5, 25], [70, 8]], micrograph="stack_07.mrc", scores=[0.9, 0.8])
        >>> write_coordinates("picks.star", picks, pixel_size=1.06)
        >>> read_coordinates("picks.star").centers_yx.tolist()
        [[35.5, 25.0], [70.0, 8.0]]
    """
    path = Path(path)
    picks = _prepared(picks, pixel_size, diameter_px)
    as_folder = path.is_dir() or not path.suffix or str(path).endswith("/")
    format = format or ("star" if as_folder else FORMAT_OF.get(path.suffix.lower()))
    if format is None:
        raise DataError(
            f"{path}: unknown suffix {path.suffix!r}; coordinates are {' '.join(COORDINATE_SUFFIXES)}"
        )
    if format not in COORDINATE_FORMATS:
        raise DataError(f"{path}: unknown format {format!r}; one of {' '.join(COORDINATE_FORMATS)}")
    if isinstance(micrograph_shapes, tuple):
        shapes = dict.fromkeys(picks.micrographs.tolist(), micrograph_shapes)
    else:
        shapes = {**picks.shapes, **(micrograph_shapes or {})}
    if as_folder:
        _write_folder(path, picks, format, pixel_size, optics, shapes)
        return
    if format in ONE_PER_FILE and len(set(picks.micrographs.tolist())) > 1:
        raise DataError(
            f"{path}: picks of {len(set(picks.micrographs.tolist()))} micrographs, and a {SUFFIX_OF[format]} "
            "file holds those of one; give a folder (a path without a suffix) to write one file for each"
        )
    remove_leftovers(path.parent)
    write_bytes(path, _content(path, picks, format, pixel_size, optics, shapes))


def _prepared(
    picks: Picks | NDArray[np.floating], pixel_size: float | None, diameter_px: float | None
) -> Picks:
    if not isinstance(picks, Picks):
        rows = np.asarray(picks, dtype=np.float64)
        rows = rows.reshape(-1, rows.shape[-1] if rows.ndim == 2 and rows.shape[1] in (2, 3) else 3)
        picks = Picks.of(rows[:, :2], diameters_px=rows[:, 2] if rows.shape[1] == 3 else None)
    if diameter_px is not None and picks.diameters_px is None:
        picks = picks.replace(diameters_px=np.full(len(picks), float(diameter_px)))
    return picks if pixel_size is None else picks.replace(pixel_size=pixel_size)


def _content(
    path: Path,
    picks: Picks,
    format: str,
    pixel_size: float | None,
    optics: Optics | None,
    shapes: Mapping[str, tuple[int, int]],
) -> bytes:
    if format == "cs":
        rows = shape_of_each(
            picks,
            shapes,
            lambda name: (
                f"{path}: a .cs file holds fractions, and the size of micrograph {name!r} is not known"
            ),
        )
        return cryosparc.cs_bytes(picks, rows)
    if format == "star":
        text = relion.relion_text(picks, pixel_size, optics)
    elif format == "coco":
        text = coco.coco_text(path, picks, shapes)
    elif format in ("box", "cbox"):
        text = (boxes.box_text if format == "box" else boxes.cbox_text)(path, picks)
    else:
        if format == "txt":
            _refuse_shared(path, {name: micrograph_stem(name) for name in picks.micrographs.tolist()})
        text = tables.table_text(picks, tables.CRYOPPP if format == "csv" else tables.TOPAZ)
    return text.encode()


def shape_of_each(
    picks: Picks, shapes: Mapping[str, tuple[int, int]], missing: Callable[[str], str]
) -> NDArray[np.float64]:
    """(n, 2) height and width of the micrograph of each pick.

    Args:
        picks: of one micrograph or of many.
        shapes: (height, width) by the name of the micrograph.
        missing: says what is wrong where the shape of a micrograph is not known.

    Raises:
        DataError: one is not.
    """
    names = picks.micrographs.tolist()
    for name in dict.fromkeys(names):
        if name not in shapes:
            raise DataError(f"{missing(name)}; give --micrographs")
    return np.array([shapes[name] for name in names], dtype=np.float64).reshape(-1, 2)


def _write_folder(
    folder: Path,
    picks: Picks,
    format: str,
    pixel_size: float | None,
    optics: Optics | None,
    shapes: Mapping[str, tuple[int, int]],
) -> None:
    """One file per micrograph; in RELION's format with the lists that make a picking job of the folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; give another folder")
    by_micrograph = dict(picks.by_micrograph())
    for name in shapes:  # a micrograph without picks gets a file as well: it was looked at
        by_micrograph.setdefault(name, picks.rows(np.zeros(len(picks), dtype=bool)))
    if "" in by_micrograph:
        raise DataError(f"{folder}: picks without the name of their micrograph; write them to a file")
    places = {name: _place(name, format) for name in by_micrograph}
    _refuse_shared(folder, places)
    with staged_directory(folder) as staged:
        for name, part in by_micrograph.items():
            (staged / places[name]).parent.mkdir(parents=True, exist_ok=True)
            if format == "star":
                content = relion.one_micrograph_text(part).encode()
            else:
                content = _content(folder / places[name], part, format, pixel_size, optics, shapes)
            (staged / places[name]).write_bytes(content)
        if format == "star":
            names = list(places)
            files = [(PurePosixPath(folder) / places[name]).as_posix() for name in names]
            listed = {
                "autopick.star": relion.list_text(names, files),
                "micrographs.star": relion.micrographs_text(picks, names, pixel_size, optics),
                f"coords_suffix{PICK_ENDING}.star": f"{(folder / 'micrographs.star').as_posix()}\n",
            }
            for name, text in listed.items():
                (staged / name).write_text(text, encoding="utf-8")


def _refuse_shared(path: Path, places: Mapping[str, str]) -> None:
    """Refuse two micrographs in one place: their picks could not be told apart."""
    taken: dict[str, str] = {}
    for name, place in places.items():
        if (other := taken.setdefault(place, name)) != name:
            raise DataError(f"{path}: {other} and {name} would both be written to {place}; rename one")


def _place(name: str, format: str) -> str:
    """Where in the folder the picks of a micrograph go.

    RELION looks for them under the micrograph's own folder, without the part that its jobs add.
    """
    if format != "star":
        return micrograph_stem(name) + SUFFIX_OF[format]
    inner = PurePosixPath(JOB_FOLDER.sub("", name))
    folder = "" if inner.is_absolute() or ".." in inner.parts else inner.parent.as_posix()
    return (PurePosixPath(folder) / f"{micrograph_stem(name)}{PICK_ENDING}.star").as_posix()
