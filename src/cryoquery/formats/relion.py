"""Picks in RELION's STAR files: 3.0, 3.1 and later with optics groups, one file for all or one each.

RELION counts pixels from 0 in the center of the first pixel of the first row that is stored, and
centers are meant: the package's own convention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.columns import number_texts, numbers, object_column
from cryoquery.formats.names import micrograph_stem
from cryoquery.formats.picks import Picks
from cryoquery.formats.star import Table, table_text

X, Y, MICROGRAPH = "rlnCoordinateX", "rlnCoordinateY", "rlnMicrographName"
SCORE, DIAMETER, OPTICS_GROUP = "rlnAutopickFigureOfMerit", "rlnDiameter", "rlnOpticsGroup"
COORDINATE_FILE = "rlnMicrographCoordinates"
"""Label of the files of picks in the list that a picking job of RELION 4 and 5 leaves."""

JOB_FOLDER = re.compile(r"^(?:.*/)?[^/]+/job\d{3,}/")
"""What RELION puts before the name of a file that a job wrote."""
UNKNOWN = -999.0
"""What programs write that must fill a column and have nothing to say."""

_PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
STATING_PIXEL_SIZE = (*_PIXEL_SIZES, "rlnMagnification", "rlnDetectorPixelSize")
"""Columns of particles that say the pixel size, and become wrong with another one."""
NEEDED_OPTICS = {"rlnVoltage": "--voltage (kV)", "rlnSphericalAberration": "--cs (mm)"}
"""Without these, and a pixel size, RELION stops at a table of optics groups; the options that say them."""
_NUMBERS = (X, Y, SCORE, DIAMETER)
_OWN = (MICROGRAPH, *_NUMBERS)


@dataclass(frozen=True)
class Optics:
    """What a table of optics groups says beside the pixel size."""

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1


@dataclass(frozen=True)
class NodeType:
    """What RELION's pipeline calls a kind of file."""

    number: int
    """In RELION 3.1."""
    label: str
    """In RELION 4 and 5."""


PICKS_OF_MICROGRAPHS = NodeType(2, "MicrographCoordsGroup.star.relion.autopick")


def holds_picks(table: Table) -> bool:
    """Whether a table has coordinates in pixels."""
    return X in table.columns and Y in table.columns


def names_micrographs(table: Table) -> bool:
    """Whether a table is of micrographs: it names them, and nothing in them."""
    return MICROGRAPH in table.columns and not holds_picks(table)


def read_relion(path: Path, tables: Sequence[Table]) -> Picks:
    """The first table of coordinates of a STAR file, as RELION takes the first; optics are kept.

    Raises:
        DataError: no table holds coordinates, or one of them is not a number.
    """
    of_picks = list(filter(holds_picks, tables))
    table = next(iter(of_picks), None)
    if table is None:
        found = ", ".join(f"data_{table.block}" for table in tables) or "none"
        raise DataError(
            f"{path}: no coordinates: no table with _{X} and _{Y} (tables: {found}); check the file"
        )
    columns = table.columns
    x, y = (numbers(path, f"_{name}", columns[name], _row) for name in (X, Y))
    optics = optics_table(tables)
    scores = _optional(path, SCORE, columns)
    extra = {name: object_column(values) for name, values in columns.items() if name not in _OWN}
    if SCORE in columns and scores is None and len(x):
        extra[SCORE] = object_column(columns[SCORE])
    return Picks(
        np.column_stack([y, x]),
        object_column(columns.get(MICROGRAPH, [""] * len(x))),
        scores,
        _optional(path, DIAMETER, columns),
        pixel_size_of(columns, optics),
        extra,
        optics,
        file_format="star",
        notes=tuple(
            f"only the first table with coordinates is read, not data_{other.block}" for other in of_picks[1:]
        ),
    )


def _row(i: int) -> str:
    return f"row {i + 1} of the table"


def optics_table(tables: Sequence[Table]) -> dict[str, NDArray[np.object_]]:
    """RELION's table of optics groups; empty where there is none."""
    table = next((t for t in tables if t.block == "optics" and OPTICS_GROUP in t.columns), None)
    return {name: object_column(values) for name, values in table.columns.items()} if table else {}


def _optional(path: Path, name: str, columns: Mapping[str, Sequence[str]]) -> NDArray[np.float64] | None:
    if name not in columns or not len(columns[name]):
        return None
    values = numbers(path, f"_{name}", columns[name], _row, missing=True)
    values[(values == UNKNOWN) | ((name == DIAMETER) & (values <= 0))] = np.nan
    return None if np.isnan(values).all() else values


def pixel_size_of(
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


def _single(texts: Sequence[str] | NDArray[np.object_]) -> float | None:
    """The one positive number that all texts are."""
    try:
        values = {float(text) for text in set(texts)}
    except (ValueError, TypeError):
        return None
    return values.pop() if len(values) == 1 and 0 < min(values) < np.inf else None


def listed_files(path: Path, tables: Sequence[Table]) -> dict[Path, str] | None:
    """The files of picks that ``autopick.star`` lists, and the micrograph of each; None: it is no such list.

    Raises:
        DataError: a file is not found.
    """
    table = next((t for t in tables if {MICROGRAPH, COORDINATE_FILE} <= t.columns.keys()), None)
    if table is None:
        return None
    files: dict[Path, str] = {}
    for name, listed in zip(table.columns[MICROGRAPH], table.columns[COORDINATE_FILE], strict=True):
        if (file := find_file(path, Path(listed))) is None:
            raise DataError(
                f"{path}: lists {listed}, which is not there; run from the folder of the RELION project"
            )
        if files.setdefault(file, name) != name:
            raise DataError(f"{path}: lists {listed} for {files[file]} and for {name}; correct one")
    return files


def find_file(path: Path, listed: Path) -> Path | None:
    """A file that STAR file ``path`` names by its way from the project: a folder somewhere above."""
    tails = [Path(*listed.parts[i:]) for i in range(len(listed.parts))]
    candidates = [listed, *(folder / listed for folder in path.parents), *(path.parent / t for t in tails)]
    return next((p for p in candidates if p.is_file() and p.resolve() != path.resolve()), None)


def place_of_picks(name: str) -> PurePosixPath:
    """Where in the folder of a picking job RELION looks for the picks of a micrograph, without their ending.

    That is under the micrograph's own folder, without the part that RELION's jobs add.
    """
    inner = PurePosixPath(JOB_FOLDER.sub("", name))
    outside = inner.is_absolute() or ".." in inner.parts
    return (PurePosixPath() if outside else inner.parent) / micrograph_stem(name)


def relion_text(picks: Picks, pixel_size: float | None = None, optics: Optics | None = None) -> str:
    """One STAR file for all picks, with a table of optics groups where all is known that RELION needs.

    Without the table the pixel size is a column of the picks.
    """
    columns: dict[str, Sequence[str]] = {}
    if picks.micrographs.any():
        columns[MICROGRAPH] = picks.micrographs.tolist()
    columns.update(_coordinate_columns(picks))
    if pixel_size is not None:
        for name in STATING_PIXEL_SIZE:  # what was stated before would win over the table of optics groups
            columns.pop(name, None)
    groups = _optics_columns(picks, pixel_size, optics)
    if not _missing(groups):
        columns.setdefault(OPTICS_GROUP, [groups[OPTICS_GROUP][0]] * len(picks))
        return table_text("optics", groups) + table_text("particles", columns, _NUMBERS)
    columns.pop(OPTICS_GROUP, None)
    size = pixel_size or picks.pixel_size
    if size is not None and not columns.keys() & set(STATING_PIXEL_SIZE):
        columns[_PIXEL_SIZES[0]] = [f"{size:.6f}"] * len(picks)
    return table_text("particles" if MICROGRAPH in columns else "", columns, _NUMBERS)


def missing_optics(picks: Picks, pixel_size: float | None, optics: Optics | None) -> list[str]:
    """The options that would make a table of optics groups complete; empty where one is written."""
    return _missing(_optics_columns(picks, pixel_size, optics))


def _missing(groups: Mapping[str, Sequence[str]]) -> list[str]:
    has_pixel_size = any(name in groups for name in (*_PIXEL_SIZES, "rlnImagePixelSize"))
    missing = [option for name, option in NEEDED_OPTICS.items() if name not in groups]
    return missing if has_pixel_size else ["--pixel-size (Å/px)", *missing]


def one_micrograph_text(picks: Picks) -> str:
    """The STAR file of one micrograph, as RELION's picking jobs write them: no names, no optics."""
    columns = _coordinate_columns(picks)
    columns.pop(OPTICS_GROUP, None)
    return table_text("", columns, _NUMBERS)


def list_text(micrographs: Sequence[str], files: Sequence[str]) -> str:
    """``autopick.star``: the files of picks of each micrograph."""
    return table_text("coordinate_files", {MICROGRAPH: micrographs, COORDINATE_FILE: files})


def nodes_text(nodes: Mapping[str, NodeType]) -> str:
    """``RELION_OUTPUT_NODES.star``: what a job has made, by the path of the file.

    RELION 3.1 reads a number for the type, RELION 4 and 5 its name; each passes over what the other reads.
    """
    columns = {
        "rlnPipeLineNodeName": list(nodes),
        "rlnPipeLineNodeType": [str(node.number) for node in nodes.values()],
        "rlnPipeLineNodeTypeLabel": [node.label for node in nodes.values()],
    }
    return table_text("output_nodes", columns)


def micrographs_text(
    picks: Picks, micrographs: Sequence[str], pixel_size: float | None, optics: Optics | None
) -> str:
    """``micrographs.star``: their names, with a table of optics groups where one can be written."""
    groups = _optics_columns(picks, pixel_size, optics)
    columns: dict[str, Sequence[str]] = {MICROGRAPH: micrographs}
    if _missing(groups):
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
    """What is known of optics groups: as read, else of one; what is said now overrides what was read."""
    if picks.optics:
        n = len(picks.optics[OPTICS_GROUP])
        columns = {name: list(map(str, values)) for name, values in picks.optics.items()}
        if not any("PixelSize" in name for name in columns):
            pixel_size = pixel_size or picks.pixel_size
    else:
        n, pixel_size = 1, pixel_size or picks.pixel_size
        columns = {"rlnOpticsGroupName": ["opticsGroup1"], OPTICS_GROUP: ["1"]}
    if pixel_size is not None:
        for name in (*_PIXEL_SIZES, "rlnImagePixelSize"):
            columns[name] = [f"{pixel_size:.6f}"] * n
    if optics is not None:
        labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
        for name, value in zip(labels, astuple(optics), strict=True):
            columns[name] = [f"{value:.6f}"] * n
    return dict(columns)
