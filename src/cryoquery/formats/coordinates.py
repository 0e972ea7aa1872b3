"""Picks read from files of any format, which is recognized from what the file holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
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
from cryoquery.formats.plausible import check_plausible
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.formats.recognize import STAR_BLOCK, decode, recognize
from cryoquery.formats.text_names import check_name


def read_coordinates(
    path: Path | str,
    *,
    format: str | None = None,
    diameter_px: float | None = None,
    micrograph_shape: tuple[int, int] | None = None,
    reading: Reading = AS_RECOGNIZED,
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
        micrograph_shape: (height, width) in pixels, for fractions in a file that does not say.
        reading: what a file that can be read in several ways does not say.

    Raises:
        DataError: the file is missing, of an unknown kind, damaged, can be read in several ways, or holds
            something else than picks on micrographs; two files of a folder have picks of one micrograph;
            or a coordinate is not a number.

    Examples:
        A corner and a box of 30 px, as EMAN writes them, are a center and a diameter here.

        >>> _ = Path("stack_07.box").write_text("10 20 30 30")
        >>> picks = read_coordinates("stack_07.box")
        >>> picks.centers_yx.tolist(), picks.diameter_px, picks.file_format
        ([[35.0, 25.0]], 30.0, 'box')
    """
    path = Path(path)
    if format is not None and format not in COORDINATE_FORMATS:
        raise DataError(f"{path}: unknown format {format!r}; one of {' '.join(COORDINATE_FORMATS)}")
    parts = read_parts(path, format=format, reading=_completed(reading, micrograph_shape, diameter_px))
    names = [part.stated if part.path == path else part.micrograph for part in parts]
    return _together(parts, names, diameter_px)


def read_by_micrograph(
    path: Path | str,
    *,
    diameter_px: float | None = None,
    micrograph_shape: tuple[int, int] | None = None,
    reading: Reading = AS_RECOGNIZED,
) -> dict[str, Picks]:
    """Read picks as `read_coordinates` does: those of each micrograph by its name, without any included.

    A file without picks is of a micrograph without any where nothing in it could name one: a file of a
    folder, of RELION's list, or of a format with one file per micrograph.
    """
    parts = read_parts(Path(path), reading=_completed(reading, micrograph_shape, diameter_px))
    return _together(parts, [part.micrograph for part in parts], diameter_px).by_micrograph()


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
    """The picks of one file, and the micrograph of those that it does not name itself."""

    path: Path
    picks: Picks
    stated: str = ""
    """The micrograph by a list of such files; empty where nothing but the name of the file may tell."""
    guess: str = ""
    """The micrograph by the name of the file; empty where it is known, or the file may be of several."""

    @property
    def micrograph(self) -> str:
        """The micrograph, as well as it is known."""
        return self.stated or self.guess


def read_parts(path: Path, *, format: str | None = None, reading: Reading = AS_RECOGNIZED) -> list[Part]:
    """The picks of each file of those that `read_coordinates` reads, and so are the arguments.

    Raises:
        DataError: as there.
    """
    folder = folder_of_job(path)
    if not folder.is_dir():
        parts = _read_file(path, format, reading)
    else:
        parts = [
            part._replace(stated=part.stated or name)
            for file, name in files_of_picks(folder, SUFFIX_OF.get(format or "", "")).items()
            for part in _read_file(file, format or _known_format(file, name), reading)
        ]
    parts = [part._replace(guess=_guess(part, folder.is_dir())) for part in parts]
    _refuse_twice(path, parts)
    return parts


def _completed(reading: Reading, shape: tuple[int, int] | None, diameter_px: float | None) -> Reading:
    return replace(
        reading,
        micrograph_shape=shape or reading.micrograph_shape,
        diameter_px=diameter_px or reading.diameter_px,
    )


def _known_format(file: Path, micrograph: str) -> str | None:
    """Of a file whose micrograph a job of RELION knows: its STAR files may be empty, however they end."""
    return "star" if micrograph and file.suffix.lower() == ".star" else None


def _guess(part: Part, is_one_of_many: bool) -> str:
    names_itself = part.picks.listed or (len(part.picks) and part.picks.micrographs.all())
    is_of_one = is_one_of_many or len(part.picks) or part.picks.file_format in ONE_PER_FILE
    return micrograph_key(part.path) if is_of_one and not part.stated and not names_itself else ""


def _refuse_twice(path: Path, parts: Sequence[Part]) -> None:
    """Refuse a micrograph whose picks are in two files, such as its own and a table for all.

    Each would count twice. Names with folders that differ are two micrographs.
    """
    seen: dict[str, tuple[Path, str]] = {}
    for part in parts if len(parts) > 1 else ():
        picks = part.picks.with_micrograph(part.micrograph)
        for name in dict.fromkeys([*picks.micrographs.tolist(), *picks.listed]):
            file, other = seen.setdefault(micrograph_key(name), (part.path, name))
            may_be_two = other != name and all({"/", "\\"} & set(one) for one in (name, other))
            if file != part.path and not may_be_two:
                both = " and ".join(os.path.relpath(one, path) for one in (file, part.path))
                raise DataError(
                    f"{path}: {both} both have picks of micrograph {name}; give one of them, or a folder "
                    "with one file for each micrograph"
                )


def _together(parts: Sequence[Part], names: Sequence[str], diameter_px: float | None) -> Picks:
    """All parts, with the names of their micrographs and a diameter where files do not say them."""
    picks = concatenate([part.picks.with_micrograph(name) for part, name in zip(parts, names, strict=True)])
    if diameter_px is None:
        return picks
    known = np.full(len(picks), np.nan) if picks.diameters_px is None else picks.diameters_px
    return picks.replace(diameters_px=np.where(np.isnan(known), diameter_px, known))


def _read_file(path: Path, format: str | None, reading: Reading, listed: bool = False) -> list[Part]:
    """Picks of one file, or of those that it lists; ``listed``: it comes from a list, and may not be one."""
    check_name(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if format == "cs" or (format is None and cryosparc.is_cs(content)):
        picks = cryosparc.read_cs(path, content, reading.micrograph_shape)
        return [Part(path, check_plausible(path, picks))]
    text = decode(path, content)
    format = format or recognize(path, text)
    if format not in ("star", "cbox") or not STAR_BLOCK.search(text):
        return [Part(path, check_plausible(path, _read_text(path, text, format, reading)))]
    found = star.read_tables(path, text)
    if not listed and (files := relion.listed_files(path, found)) is not None:
        return [
            part._replace(stated=name)
            for file, name in files.items()
            for part in _read_file(file, _known_format(file, name), reading, listed=True)
        ]
    return [Part(path, check_plausible(path, _read_star(path, found, reading)))]


def _read_star(path: Path, found: Sequence[star.Table], reading: Reading) -> Picks:
    """Picks of RELION's tables, which are centers unless a person says that they are corners, or crYOLO's."""
    if any(map(boxes.holds_boxes, found)) and not any(map(relion.holds_picks, found)):
        return boxes.read_cbox(path, found, reading)
    picks = relion.read_relion(path, found)
    if reading.origin != "corner" or not len(picks):
        return picks
    sizes = reading.diameter_px if picks.diameters_px is None else picks.diameters_px[:, None]
    if sizes is None or not np.isfinite(sizes).all():
        raise DataError(
            f"{path}: the corners of boxes without their size; give --diameter-px, or --origin center"
        )
    return picks.replace(centers_yx=picks.centers_yx + sizes / 2)


def _read_text(path: Path, text: str, format: str, reading: Reading) -> Picks:
    readers = {"coco": coco.read_coco, "box": boxes.read_box, "cbox": boxes.read_old_cbox}
    if format in readers and not (reading.columns and format != "coco"):
        return readers[format](path, text, reading)
    if format == "star" and not text.strip():
        return no_picks("star")
    if format == "star":
        raise DataError(f"{path}: not a STAR file: no line begins with data_; check what it is")
    return tables.read_table(path, text, reading, "corner" if path.suffix.lower() == ".box" else "center")
