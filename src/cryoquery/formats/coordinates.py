"""Picks read from files of any format, which is recognized from what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cryoquery.errors import DataError
from cryoquery.formats import boxes, coco, cryosparc, relion, star, tables
from cryoquery.formats.micrograph_star import read_micrograph_star
from cryoquery.formats.names import (
    COORDINATE_FORMATS,
    ONE_PER_FILE,
    SUFFIX_OF,
    micrograph_key,
)
from cryoquery.formats.picking_job import files_of_picks, folder_of_job
from cryoquery.formats.picks import Picks, concatenate, no_picks
from cryoquery.formats.recognize import STAR_BLOCK, decode, recognize

MAX_COORDINATE = 1e7
"""Pixels; what is beyond is no coordinate."""


def read_coordinates(
    path: Path | str,
    *,
    format: str | None = None,
    diameter_px: float | None = None,
    micrograph_shape: tuple[int, int] | None = None,
) -> Picks:
    """Read the picks of a file, or of all files of coordinates in a folder.

    Args:
        path: a file of any of `COORDINATE_FORMATS`, recognized from what it holds; RELION's list of
            such files (``autopick.star``), which is followed; or a folder, also that of a picking job of
            RELION 3.1 or its ``coords_suffix_*.star``. Picks of a folder's files that do not name their
            micrograph get the name that the job knows, else the file's own, without endings like
            ``_autopick``.
        format: one of `COORDINATE_FORMATS`, to read a file as this one.
        diameter_px: of the particles, for picks whose file does not say.
        micrograph_shape: (height, width) in pixels, for a ``.cs`` file that does not say.

    Raises:
        DataError: the file is missing, of an unknown kind, damaged, or a coordinate is not a number.

    Examples:
        A corner and a box of 30 px, as EMAN writes them, are a center and a diameter here.

        >>> _ = Path("stack_07.box").write_text("10 20 30 30")
        >>> picks = read_coordinates("stack_07.box")
        >>> picks.centers_yx.tolist(), picks.diameter_px, picks.file_format
        ([[35.0, 25.0]], 30.0, 'box')
    """
    path = folder_of_job(Path(path))
    if format is not None and format not in COORDINATE_FORMATS:
        raise DataError(f"{path}: unknown format {format!r}; one of {' '.join(COORDINATE_FORMATS)}")
    parts = read_parts(path, format=format, micrograph_shape=micrograph_shape)
    return _together([_named(part) for part in parts] if path.is_dir() else parts, diameter_px)


def read_by_micrograph(
    path: Path | str,
    *,
    diameter_px: float | None = None,
    micrograph_shape: tuple[int, int] | None = None,
) -> dict[str, Picks]:
    """Read picks as `read_coordinates` does: those of each micrograph by its name, without any included.

    A file without picks is of a micrograph without any where nothing in it could name one: a file of a
    folder, of RELION's list, or of a format with one file per micrograph.
    """
    path = folder_of_job(Path(path))
    parts = [_named(part, path.is_dir()) for part in read_parts(path, micrograph_shape=micrograph_shape)]
    by_name = _together(parts, diameter_px).by_micrograph()
    known = set(map(micrograph_key, by_name))
    empty = {part.micrograph: part.picks for part in parts if part.micrograph and not len(part.picks)}
    return by_name | {name: picks for name, picks in empty.items() if micrograph_key(name) not in known}


def read_optics_pixel_size(path: Path | str) -> float:
    """Å/px of the micrographs by the optics groups of a STAR file, such as ``micrographs_ctf.star``.

    Raises:
        DataError: the file is missing or damaged, states none, or several that differ.
    """
    size = read_micrograph_star(path).pixel_size
    if size is None:
        raise DataError(f"{path}: its optics groups state no pixel size, or several; give --pixel-size")
    return size


class Part(NamedTuple):
    """The picks of one file."""

    path: Path
    micrograph: str
    """That the picks are of, as a list of such files states it; empty where nothing but their names tells."""
    picks: Picks


def read_parts(
    path: Path, *, format: str | None = None, micrograph_shape: tuple[int, int] | None = None
) -> list[Part]:
    """The picks of each file of those that `read_coordinates` reads, and so are the arguments.

    Raises:
        DataError: as there.
    """
    path = folder_of_job(path)
    if not path.is_dir():
        return _read_file(path, format, micrograph_shape)
    files = files_of_picks(path, SUFFIX_OF.get(format or "", ""))
    return [
        part._replace(micrograph=part.micrograph or name)
        for file, name in files.items()
        for part in _read_file(file, format or _known_format(file, name), micrograph_shape)
    ]


def _known_format(file: Path, micrograph: str) -> str | None:
    """Of a file whose micrograph a job of RELION knows: its STAR files may be empty, however they end."""
    return "star" if micrograph and file.suffix.lower() == ".star" else None


def _named(part: Part, is_one_of_many: bool = True) -> Part:
    """Named like its file, where the micrograph is not known and the file is of one micrograph."""
    is_of_one = is_one_of_many or len(part.picks) or part.picks.file_format in ONE_PER_FILE
    return part._replace(micrograph=part.micrograph or (micrograph_key(part.path) if is_of_one else ""))


def _together(parts: list[Part], diameter_px: float | None) -> Picks:
    picks = concatenate([part.picks.with_micrograph(part.micrograph) for part in parts])
    if diameter_px is not None:
        known = np.full(len(picks), np.nan) if picks.diameters_px is None else picks.diameters_px
        picks = picks.replace(diameters_px=np.where(np.isnan(known), diameter_px, known))
    return picks


def _read_file(
    path: Path, format: str | None, shape: tuple[int, int] | None, listed: bool = False
) -> list[Part]:
    """Picks of one file, or of those that it lists; ``listed``: it comes from a list, and may not be one."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if format == "cs" or (format is None and cryosparc.is_cs(content)):
        picks = cryosparc.read_cs(path, content, shape)
    else:
        text = decode(path, content)
        format = format or recognize(path, text)
        if format in ("star", "cbox") and STAR_BLOCK.search(text):
            found = star.read_tables(path, text)
            if not listed and (files := relion.listed_files(path, found)) is not None:
                return [Part(p, name, _read_file(p, None, None, True)[0].picks) for p, name in files.items()]
            has_boxes = any(map(boxes.holds_boxes, found)) and not any(map(relion.holds_picks, found))
            picks = (boxes.read_cbox if has_boxes else relion.read_relion)(path, found)
        else:
            picks = _read_text(path, text, format)
    too_large = np.abs(picks.centers_yx) > MAX_COORDINATE
    if too_large.any():
        value = picks.centers_yx[too_large][0]
        raise DataError(f"{path}: a coordinate of {value:g} px; no micrograph is that large, correct it")
    return [Part(path, "", picks)]


def _read_text(path: Path, text: str, format: str) -> Picks:
    readers = {"coco": coco.read_coco, "box": boxes.read_box, "cbox": boxes.read_old_cbox}
    if format in readers:
        return readers[format](path, text)
    if format == "star" and not text.strip():
        return no_picks("star")
    if format == "star":
        raise DataError(f"{path}: not a STAR file: no line begins with data_; check what it is")
    stated = tables.layout_of(next(filter(str.strip, text[:100_000].splitlines()), ""))
    usual = tables.CRYOPPP if format == "csv" else tables.TOPAZ
    return tables.read_table(path, text, stated if stated and stated.name == format else usual)
