"""Picks read from files of any format, which is recognized from what the file holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoquery.errors import DataError
from cryoquery.formats import boxes, coco, cryosparc, relion, star, tables
from cryoquery.formats.folders import coordinate_files
from cryoquery.formats.names import (
    COORDINATE_FORMATS,
    COORDINATE_SUFFIXES,
    ONE_PER_FILE,
    SUFFIX_OF,
    check_name,
    micrograph_key,
)
from cryoquery.formats.picks import Picks, concatenate
from cryoquery.formats.plausible import check_plausible
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.formats.recognize import STAR_BLOCK, decode, recognize

SUFFIX_LIST = "coords_suffix"
"""How the file begins whose name says how the files of picks of a RELION 3.1 job end."""


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
            such files (``autopick.star``), which is followed; or a folder. Picks of a folder's files
            that do not name their micrograph get the file's own name, without endings like ``_autopick``.
        format: one of `COORDINATE_FORMATS`, to read a file as this one.
        diameter_px: of the particles, for picks whose file does not say.
        micrograph_shape: (height, width) in pixels, for fractions in a file that does not say.
        reading: what a file that can be read in several ways does not say.

    Raises:
        DataError: the file is missing, of an unknown kind, damaged, can be read in several ways, or holds
            something else than picks on micrographs; or a coordinate is not a number.

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
    reading = _completed(reading, micrograph_shape, diameter_px)
    return _together(path, _read(path, format, reading), diameter_px)


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
    path = Path(path)
    reading = _completed(reading, micrograph_shape, diameter_px)
    parts = _read(path, None, reading)
    if not path.is_dir():
        own = micrograph_key(path)
        parts = [
            (name or (own if len(picks) or picks.file_format in ONE_PER_FILE else ""), picks)
            for name, picks in parts
        ]
    return _together(path, parts, diameter_px).by_micrograph()


def read_optics_pixel_size(path: Path | str) -> float:
    """Å/px of the micrographs by the optics groups of a STAR file, such as ``micrographs_ctf.star``.

    Raises:
        DataError: the file is missing or damaged, states none, or several that differ.
    """
    path = Path(path)
    try:
        text = decode(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    size = relion.optics_pixel_size(star.read_tables(path, text))
    if size is None:
        raise DataError(f"{path}: its optics groups state no pixel size, or several; give --pixel-size")
    return size


Part = tuple[str, Picks]
"""Picks of one file and the micrograph that they are of, empty where nothing but the file's name tells."""


def _completed(reading: Reading, shape: tuple[int, int] | None, diameter_px: float | None) -> Reading:
    return replace(
        reading,
        micrograph_shape=shape or reading.micrograph_shape,
        diameter_px=diameter_px or reading.diameter_px,
    )


def _read(path: Path, format: str | None, reading: Reading) -> list[Part]:
    return (_read_folder if path.is_dir() else _read_file)(path, format, reading)


def _together(path: Path, parts: list[Part], diameter_px: float | None) -> Picks:
    """All parts, each with the name of its micrograph; those without picks are listed."""
    named = [picks.with_micrograph(name) for name, picks in parts]
    _refuse_twice(path, named)
    picks = concatenate(named)
    if diameter_px is not None:
        known = np.full(len(picks), np.nan) if picks.diameters_px is None else picks.diameters_px
        picks = picks.replace(diameters_px=np.where(np.isnan(known), diameter_px, known))
    return picks


def _refuse_twice(path: Path, parts: list[Picks]) -> None:
    """Refuse a micrograph whose picks are in two files, such as its own and a table for all.

    Each would count twice. Names with folders that differ are two micrographs.
    """
    seen: dict[str, tuple[int, str]] = {}
    for i, picks in enumerate(parts if len(parts) > 1 else []):
        for name in dict.fromkeys([*picks.micrographs.tolist(), *picks.listed]):
            file, other = seen.setdefault(micrograph_key(name), (i, name))
            if file != i and (other == name or not {"/", "\\"} & set(other) or not {"/", "\\"} & set(name)):
                raise DataError(
                    f"{path}: two of its files have picks of micrograph {name}; give one of them, or a "
                    "folder with only the files of each micrograph"
                )


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
        return [("", check_plausible(path, cryosparc.read_cs(path, content, reading.micrograph_shape)))]
    text = decode(path, content)
    format = format or recognize(path, text)
    if format in ("star", "cbox") and STAR_BLOCK.search(text):
        found = star.read_tables(path, text)
        if not listed and (
            files := relion.read_listed(path, found, lambda p: _read_file(p, None, reading, True)[0][1])
        ):
            return files
        has_boxes = any(map(boxes.holds_boxes, found)) and not any(map(relion.holds_picks, found))
        if has_boxes:
            picks = boxes.read_cbox(path, found, reading)
        else:
            picks = _from_corners(path, relion.read_relion(path, found), reading)
    else:
        picks = _read_text(path, text, format, reading)
    return [("", check_plausible(path, picks))]


def _from_corners(path: Path, picks: Picks, reading: Reading) -> Picks:
    """Picks of a STAR file: centers, unless a person says that they are corners of boxes."""
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
    if format == "star":
        raise DataError(f"{path}: not a STAR file: no line begins with data_; check what it is")
    return tables.read_table(path, text, reading, "corner" if path.suffix.lower() == ".box" else "center")


def _read_folder(folder: Path, format: str | None, reading: Reading) -> list[Part]:
    for name in ("autopick.star", "manualpick.star"):
        if (folder / name).is_file():
            return _read_file(folder / name, "star", reading)
    own = SUFFIX_OF.get(format or "", "")
    files = [p for p in coordinate_files(folder) if p.suffix.lower().endswith(own)]
    # A picking job of RELION 3.1 says how its files end; others in its folder are about the job.
    endings = tuple(p.name.removeprefix(SUFFIX_LIST) for p in files if p.name.startswith(SUFFIX_LIST))
    if endings:
        files = [p for p in files if p.name.endswith(endings) and not p.name.startswith(SUFFIX_LIST)]
    if not files:
        raise DataError(f"{folder}: no files of coordinates; they end in {' '.join(COORDINATE_SUFFIXES)}")
    by_key: dict[str, Path] = {}
    for p in files:
        if (other := by_key.setdefault(micrograph_key(p), p)) is not p:
            raise DataError(
                f"{folder}: {other.relative_to(folder)} and {p.relative_to(folder)} are both of micrograph "
                f"{micrograph_key(p)}; give one subfolder, or one format with --format"
            )
    return [
        (name or key, picks) for key, p in by_key.items() for name, picks in _read_file(p, format, reading)
    ]
