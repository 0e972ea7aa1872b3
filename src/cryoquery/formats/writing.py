"""Picks written to a file of any format, or to a folder with one file per micrograph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats import boxes, coco, cryosparc, relion, tables
from cryoquery.formats.micrograph_star import MicrographStar
from cryoquery.formats.micrographs import micrograph_suffix
from cryoquery.formats.names import (
    COORDINATE_FORMATS,
    COORDINATE_SUFFIXES,
    FORMAT_OF,
    ONE_PER_FILE,
    SUFFIX_OF,
    micrograph_stem,
)
from cryoquery.formats.picking_job import SUFFIX_LIST
from cryoquery.formats.picks import Picks
from cryoquery.formats.placement import Placement, place
from cryoquery.formats.relion import Optics
from cryoquery.formats.text_names import check_name
from cryoquery.storage.atomic import remove_leftovers, staged_directory, write_bytes

PICK_ENDING = "_autopick"
READ_FROM_THE_LAST_ROW = {"relion": (".tif", ".tiff")}
"""Micrographs of which a client reads the rows in reverse order, by client."""

Client = Literal["relion", "cryosparc"]
"""A program that picks are written for."""


def write_coordinates(
    path: Path | str,
    picks: Picks | NDArray[np.floating],
    *,
    format: str | None = None,
    pixel_size: float | None = None,
    optics: Optics | None = None,
    diameter_px: float | None = None,
    micrograph_shapes: Mapping[str, tuple[int, int]] | tuple[int, int] | None = None,
    star: MicrographStar | None = None,
    client: Client | None = None,
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
        star: RELION's STAR file of the micrographs, for the table of optics groups.
        client: who will read them, see `as_client_takes`; what it needs must be known.

    Raises:
        DataError: the format is unknown, cannot hold several micrographs in a file, or lacks what it
            or the client needs; the folder is not empty; or a center is not a number.

    Examples:
        >>> from cryoquery.formats import read_coordinates
        >>> picks = Picks.of([[35.5, 25], [70, 8]], micrograph="stack_07.mrc", scores=[0.9, 0.8])
        >>> write_coordinates("picks.star", picks, pixel_size=1.06)
        >>> read_coordinates("picks.star").centers_yx.tolist()
        [[35.5, 25.0], [70.0, 8.0]]
    """
    path = Path(path)
    picks = _prepared(path, picks, pixel_size, diameter_px)
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
    picks = as_client_takes(path, picks, shapes, client)
    if as_folder:
        _write_folder(path, picks, format, pixel_size, optics, shapes, star)
        return
    picks = star.with_optics(picks) if star is not None else picks
    if client is not None and (missing := lacks_optics(path, picks, optics, format)):
        raise DataError(f"{path}: {client} needs a table of optics groups; give {missing}, or a STAR with it")
    if format in ONE_PER_FILE and len(set(picks.micrographs.tolist())) > 1:
        raise DataError(
            f"{path}: picks of {len(set(picks.micrographs.tolist()))} micrographs, and a {SUFFIX_OF[format]} "
            "file holds those of one; give a folder (a path without a suffix) to write one file for each"
        )
    remove_leftovers(path.parent)
    write_bytes(path, _content(path, picks, format, pixel_size, optics, shapes))


def as_client_takes(
    path: Path | str, picks: Picks, shapes: Mapping[str, tuple[int, int]], client: Client | None
) -> Picks:
    """Picks as a program takes them: RELION reads TIFF files from the last row on, and cuts at whole pixels.

    It drops what comes after the point, which would move boxes by half a pixel on average; so it is rounded.

    Args:
        path: of the picks, for messages.
        picks: micrographs by name, whose suffix tells the kind of file.
        shapes: (height, width) in pixels by the name of the micrograph.
        client: the program; None: first row on top, as here.

    Raises:
        DataError: a size that is needed is not known.
    """
    if client != "relion":
        return picks
    names = picks.micrographs.tolist()
    is_reverse = {name: is_read_from_the_last_row(name, client) for name in dict.fromkeys(names)}
    reverse = np.array([is_reverse[name] for name in names], dtype=bool)
    own = picks.rows(reverse)
    extents = shape_of_each(
        own,
        shapes,
        lambda name: f"{path}: {client} reads {name} from the last row on, and its size is not known",
    )
    centers = picks.centers_yx.copy()
    centers[reverse] = place(own, Placement.of(False, True, False), extents).centers_yx
    return picks.replace(centers_yx=np.floor(centers + 0.5))


def is_read_from_the_last_row(micrograph: str, client: Client | None) -> bool:
    """Whether a program reads the rows of a micrograph in reverse order, going by the suffix of its name."""
    return micrograph_suffix(micrograph) in READ_FROM_THE_LAST_ROW.get(client or "", ())


def lacks_optics(path: Path | str, picks: Picks, optics: Optics | None, format: str | None = None) -> str:
    """What keeps a STAR file of all picks from having RELION's table of optics groups.

    Returns:
        the options that would say it, in one line; empty for a complete table, and for other targets.
    """
    path = Path(path)
    if path.is_dir() or (format or FORMAT_OF.get(path.suffix.lower())) != "star":
        return ""
    return ", ".join(relion.missing_optics(picks, None, optics))


def _prepared(
    path: Path, picks: Picks | NDArray[np.floating], pixel_size: float | None, diameter_px: float | None
) -> Picks:
    if not isinstance(picks, Picks):
        rows = np.asarray(picks, dtype=np.float64)
        rows = rows.reshape(-1, rows.shape[-1] if rows.ndim == 2 and rows.shape[1] in (2, 3) else 3)
        picks = Picks.of(rows[:, :2], diameters_px=rows[:, 2] if rows.shape[1] == 3 else None)
    for name, values in (
        ("center", picks.centers_yx),
        ("diameter", picks.diameters_px),
        ("score", picks.scores),
    ):
        if values is not None and not (np.isfinite(values) | (np.isnan(values) & (name != "center"))).all():
            raise DataError(f"{path}: the {name} of a pick is not a finite number; leave that pick out")
    for stated in dict.fromkeys([*picks.micrographs.tolist(), *picks.listed]):
        check_name(stated)
    if diameter_px is not None:
        known = np.full(len(picks), np.nan) if picks.diameters_px is None else picks.diameters_px
        picks = picks.replace(diameters_px=np.where(np.isnan(known), float(diameter_px), known))
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
    star: MicrographStar | None,
) -> None:
    """One file per micrograph; in RELION's format with the lists that make a picking job of the folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; give another folder")
    if format == "star":
        files = job_files(folder, picks, shapes, pixel_size=pixel_size, optics=optics, star=star)
    else:
        parts = _by_micrograph(folder, picks, shapes)
        places = {name: f"{micrograph_stem(name)}{SUFFIX_OF[format]}" for name in parts}
        _refuse_shared(folder, places)
        files = {
            places[name]: _content(folder / places[name], part, format, pixel_size, optics, shapes)
            for name, part in parts.items()
        }
    with staged_directory(folder) as staged:
        for place_in_folder, content in files.items():
            (staged / place_in_folder).parent.mkdir(parents=True, exist_ok=True)
            (staged / place_in_folder).write_bytes(content)


def job_files(
    folder: Path,
    picks: Picks,
    shapes: Mapping[str, tuple[int, int]],
    *,
    pixel_size: float | None = None,
    optics: Optics | None = None,
    star: MicrographStar | None = None,
) -> dict[str, bytes]:
    """The files of a picking job of RELION 3.1 to 5, by their place in its folder.

    Args:
        folder: of the job, as it is called from the folder of RELION's project.
        picks: to write.
        shapes: (height, width) in pixels of the micrographs by name; those without picks were looked at.
        pixel_size: Å/px of the micrographs.
        optics: for the table of optics groups of ``micrographs.star``.
        star: the micrographs, which is then named in place of ``micrographs.star``.

    Raises:
        DataError: a micrograph is not named, or two have one place.
    """
    parts = _by_micrograph(folder, picks, shapes)
    places = {name: f"{relion.place_of_picks(name)}{PICK_ENDING}.star" for name in parts}
    _refuse_shared(folder, places)
    listed = [(PurePosixPath(folder) / place_in_folder).as_posix() for place_in_folder in places.values()]
    files = {places[name]: relion.one_micrograph_text(part) for name, part in parts.items()}
    files["autopick.star"] = relion.list_text(list(places), listed)
    if star is None:
        files["micrographs.star"] = relion.micrographs_text(picks, list(places), pixel_size, optics)
    micrographs = star.path if star else folder / "micrographs.star"
    files[f"{SUFFIX_LIST}{PICK_ENDING}.star"] = f"{micrographs.as_posix()}\n"
    return {name: text.encode() for name, text in files.items()}


def _by_micrograph(folder: Path, picks: Picks, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Picks]:
    """Picks of each micrograph; one without picks gets a file as well: it was looked at."""
    by_micrograph = picks.by_micrograph()
    for name in shapes:
        by_micrograph.setdefault(name, picks.rows(np.zeros(len(picks), dtype=bool)))
    if "" in by_micrograph:
        raise DataError(f"{folder}: picks without the name of their micrograph; write them to a file")
    return by_micrograph


def _refuse_shared(path: Path, places: Mapping[str, str]) -> None:
    """Refuse two micrographs in one place: their picks could not be told apart."""
    taken: dict[str, str] = {}
    for name, own in places.items():
        if (other := taken.setdefault(own, name)) != name:
            raise DataError(f"{path}: {other} and {name} would both be written to {own}; rename one")
