"""Picks in RELION's STAR files: 3.0, 3.1 and later with optics groups, one file for all or one each.

RELION counts pixels from 0 in the center of the first pixel of the first row that is stored, and
centers are meant: the package's own convention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.columns import number_texts, numbers, object_column
from cryoquery.formats.picks import Picks
from cryoquery.formats.star import Table, table_text

X, Y, MICROGRAPH = "rlnCoordinateX", "rlnCoordinateY", "rlnMicrographName"
SCORE, DIAMETER, OPTICS_GROUP = "rlnAutopickFigureOfMerit", "rlnDiameter", "rlnOpticsGroup"
COORDINATE_FILE = "rlnMicrographCoordinates"
"""Label of the files of picks in the list that a picking job of RELION 4 and 5 leaves."""

UNKNOWN = -999.0
"""What programs write that must fill a column and have nothing to say."""

_PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
STATING_PIXEL_SIZE = (*_PIXEL_SIZES, "rlnMagnification", "rlnDetectorPixelSize")
"""Columns of particles that say the pixel size, and become wrong with another one."""
_NUMBERS = (X, Y, SCORE, DIAMETER)
_OWN = (MICROGRAPH, *_NUMBERS)


@dataclass(frozen=True)
class Optics:
    """What a table of optics groups says beside the pixel size."""

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1


def holds_picks(table: Table) -> bool:
    """Whether a table has coordinates in pixels."""
    return X in table.columns and Y in table.columns


def read_relion(path: Path, tables: Sequence[Table]) -> Picks:
    """The first table of coordinates of a STAR file, as RELION takes the first; optics are kept.

    Raises:
        DataError: no table holds coordinates, or one of them is not a number.
    """
    table = next(filter(holds_picks, tables), None)
    if table is None:
        found = ", ".join(f"data_{table.block}" for table in tables) or "none"
        raise DataError(
            f"{path}: no coordinates: no table with _{X} and _{Y} (tables: {found}); check the file"
        )
    columns = table.columns
    x, y = (numbers(path, f"_{name}", columns[name], _row) for name in (X, Y))
    optics = _optics_table(tables)
    scores = _optional(path, SCORE, columns)
    extra = {name: object_column(values) for name, values in columns.items() if name not in _OWN}
    if SCORE in columns and scores is None and len(x):
        extra[SCORE] = object_column(columns[SCORE])
    return Picks(
        np.column_stack([y, x]),
        object_column(columns.get(MICROGRAPH, [""] * len(x))),
        scores,
        _optional(path, DIAMETER, columns),
        _pixel_size(columns, optics),
        extra,
        optics,
        file_format="star",
    )


def _row(i: int) -> str:
    return f"row {i + 1} of the table"


def _optics_table(tables: Sequence[Table]) -> dict[str, NDArray[np.object_]]:
    """The table of optics groups; empty where there is none."""
    table = next((t for t in tables if t.block == "optics" and OPTICS_GROUP in t.columns), None)
    return {name: object_column(values) for name, values in table.columns.items()} if table else {}


def _optional(path: Path, name: str, columns: Mapping[str, Sequence[str]]) -> NDArray[np.float64] | None:
    if name not in columns or not len(columns[name]):
        return None
    values = numbers(path, f"_{name}", columns[name], _row, missing=True)
    values[(values == UNKNOWN) | ((name == DIAMETER) & (values <= 0))] = np.nan
    return None if np.isnan(values).all() else values


def _pixel_size(
    columns: Mapping[str, Sequence[str]], optics: Mapping[str, NDArray[np.object_]]
) -> float | None:
    """Å/px of the micrographs, where all rows and all optics groups agree.

    The image pixel size is that of extracted particles, which may be binned: it does not count.
    """
    for name in _PIXEL_SIZES:
        for source in (columns, optics):
            if name in source:
                return _single(source[name])
    if "rlnImageName" not in columns and {"rlnMagnification", "rlnDetectorPixelSize"} <= columns.keys():
        magnification, detector = (
            _single(columns[name]) for name in ("rlnMagnification", "rlnDetectorPixelSize")
        )
        return detector * 1e4 / magnification if detector and magnification else None
    return None


def optics_pixel_size(tables: Sequence[Table]) -> float | None:
    """Å/px of the micrographs in the table of optics groups, where all of them agree."""
    return _pixel_size({}, _optics_table(tables))


def _single(texts: Sequence[str] | NDArray[np.object_]) -> float | None:
    """The one positive number that all texts are."""
    try:
        values = {float(text) for text in set(texts)}
    except (ValueError, TypeError):
        return None
    return values.pop() if len(values) == 1 and 0 < min(values) < np.inf else None


def read_listed(
    path: Path, tables: Sequence[Table], read: Callable[[Path], Picks]
) -> list[tuple[str, Picks]] | None:
    """The picks of the files that ``autopick.star`` lists, by micrograph; None where it is no such list.

    RELION writes the places of files from the project's folder, which is looked for above ``path``.

    Raises:
        DataError: a file is not found, or ``read`` raises it.
    """
    table = next((t for t in tables if {MICROGRAPH, COORDINATE_FILE} <= t.columns.keys()), None)
    if table is None:
        return None
    pairs = list(zip(table.columns[MICROGRAPH], table.columns[COORDINATE_FILE], strict=True))
    of_file: dict[str, str] = {}
    for name, listed in pairs:
        if of_file.setdefault(listed, name) != name:
            raise DataError(f"{path}: lists {listed} for {of_file[listed]} and for {name}; correct one")
    return [(name, read(_find(path, Path(listed)))) for listed, name in of_file.items()]


def _find(path: Path, listed: Path) -> Path:
    tails = [Path(*listed.parts[i:]) for i in range(len(listed.parts))]
    candidates = [listed, *(folder / listed for folder in path.parents), *(path.parent / t for t in tails)]
    for candidate in candidates:
        if candidate.is_file() and candidate.resolve() != path.resolve():
            return candidate
    raise DataError(f"{path}: lists {listed}, which is not there; run from the folder of the RELION project")


def relion_text(picks: Picks, pixel_size: float | None = None, optics: Optics | None = None) -> str:
    """One STAR file for all picks, with a table of optics groups where anything is known of them."""
    columns: dict[str, Sequence[str]] = {}
    if picks.micrographs.any():
        columns[MICROGRAPH] = picks.micrographs.tolist()
    columns.update(_coordinate_columns(picks))
    groups = _optics_columns(picks, pixel_size, optics)
    if not groups:
        return table_text("particles" if MICROGRAPH in columns else "", columns, _NUMBERS)
    if pixel_size is not None:
        for name in STATING_PIXEL_SIZE:  # what was stated before would win over the table of optics groups
            columns.pop(name, None)
    columns.setdefault(OPTICS_GROUP, [groups[OPTICS_GROUP][0]] * len(picks))
    return table_text("optics", groups) + table_text("particles", columns, _NUMBERS)


def one_micrograph_text(picks: Picks) -> str:
    """The STAR file of one micrograph, as RELION's picking jobs write them: no names, no optics."""
    return table_text("", _coordinate_columns(picks), _NUMBERS)


def list_text(micrographs: Sequence[str], files: Sequence[str]) -> str:
    """``autopick.star``: the files of picks of each micrograph."""
    return table_text("coordinate_files", {MICROGRAPH: micrographs, COORDINATE_FILE: files})


def micrographs_text(
    picks: Picks, micrographs: Sequence[str], pixel_size: float | None, optics: Optics | None
) -> str:
    """``micrographs.star``: their names, with a table of optics groups where anything is known of them."""
    groups = _optics_columns(picks, pixel_size, optics)
    columns: dict[str, Sequence[str]] = {MICROGRAPH: micrographs}
    if not groups:
        return table_text("micrographs", columns)
    columns[OPTICS_GROUP] = [groups[OPTICS_GROUP][0]] * len(micrographs)
    return table_text("optics", groups) + table_text("micrographs", columns)


def _coordinate_columns(picks: Picks) -> dict[str, Sequence[str]]:
    columns: dict[str, Sequence[str]] = {
        X: number_texts(picks.centers_yx[:, 1]),
        Y: number_texts(picks.centers_yx[:, 0]),
    }
    if picks.scores is not None:
        columns[SCORE] = _known(picks.scores)
    if picks.diameters_px is not None:
        columns[DIAMETER] = _known(picks.diameters_px)
    for name, values in picks.extra.items():
        if values.ndim == 1 and "/" not in name and _label(name) not in columns:
            columns[_label(name)] = list(map(str, values.tolist()))
    return columns


def _known(values: NDArray[np.float64]) -> list[str]:
    return number_texts(np.where(np.isnan(values), UNKNOWN, values))


def _label(name: str) -> str:
    return "_".join(name.replace("#", " ").replace("'", " ").replace('"', " ").split()) or "unnamed"


def _optics_columns(
    picks: Picks, pixel_size: float | None, optics: Optics | None
) -> dict[str, Sequence[str]]:
    """RELION's table: as it was read, else one group; what is said now overrides what was read."""
    pixel_size_now, pixel_size = pixel_size, pixel_size or picks.pixel_size
    if picks.optics:
        n = len(picks.optics[OPTICS_GROUP])
        columns = {name: list(map(str, values)) for name, values in picks.optics.items()}
    elif pixel_size is None and optics is None:
        return {}
    else:
        n, pixel_size_now = 1, pixel_size
        columns = {"rlnOpticsGroupName": ["opticsGroup1"], OPTICS_GROUP: ["1"]}
    if pixel_size_now is not None:
        for name in (*_PIXEL_SIZES, "rlnImagePixelSize"):
            columns[name] = [f"{pixel_size_now:.6f}"] * n
    if optics is not None:
        labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
        for name, value in zip(labels, astuple(optics), strict=True):
            columns[name] = [f"{value:.6f}"] * n
    return dict(columns)
