"""Boxes around particles: EMAN's ``.box`` and crYOLO's ``.cbox``, which hold a corner and a size.

The center is the corner plus half the size, as crYOLO and RELION take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.columns import DECIMALS, number_texts, numbers, object_column, short_texts
from cryoquery.formats.picks import Picks, no_picks
from cryoquery.formats.reading import AS_RECOGNIZED, Origin, Reading
from cryoquery.formats.star import VERSION, Table, table_text
from cryoquery.formats.text_table import TextTable, decimal_points, read_text_table

EMAN_FLAGS = frozenset((0.0, -1.0, -2.0, -3.0))
"""What EMAN 1 has in the fifth column: an ordinary box, or the ends of a helix. Not a score."""

HELIX_ENDS = (-1.0, -2.0)
HELIX_NOTE = (
    "boxes flagged -1 and -2 are the two ends of a helix, not particles; pick along it, or leave them out"
)

CBOX_LABELS = (
    *("CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth"),
    *("EstWidth", "EstHeight", "Confidence", "NumBoxes", "Angle"),
)
"""Labels of crYOLO's format 1.0, in its order."""

_OLD_CBOX = ("CoordinateX", "CoordinateY", "Width", "Height", "Confidence", "EstWidth", "EstHeight")
_CBOX_HEADER = "\ndata_global\n\n_cbox_format_version 1.0\n\n"
_CBOX_END = "\ndata_cryolo_include\n\nloop_\n_slice_index #1\n\n"


def centers_of_boxes(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    width: NDArray[np.float64] | None,
    height: NDArray[np.float64] | None,
    origin: Origin = "corner",
) -> NDArray[np.float64]:
    """Centers (n, 2) of boxes in px; a box drawn towards smaller x has a negative width.

    Args:
        x: (n,) of the corner, or of the center.
        y: likewise.
        width: (n,); may be None for centers, as may ``height``.
        height: see there.
        origin: what x and y are.
    """
    if origin == "center" or width is None or height is None:
        return np.column_stack([y, x])
    return np.column_stack([y + height / 2, x + width / 2])


def sizes_of_boxes(width: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.float64]:
    """The longer sides (n,) of boxes, which stand for the diameters of particles."""
    return np.maximum(np.abs(width), np.abs(height))


def read_box(path: Path, text: str, reading: Reading = AS_RECOGNIZED) -> Picks:
    """EMAN's ``.box``: x, y of the corner, width, height, and perhaps a score.

    Raises:
        DataError: a line has another number of values than the first, or one is not a number.
    """
    table = read_text_table(path, text, named=False)
    if not table.rows:
        return no_picks("box")
    n_columns = len(table.rows[0])
    if n_columns not in (4, 5):
        raise DataError(
            f"{path}: line {table.lines[0]} has {n_columns} values; a .box has x y width height [score]"
        )
    names = ("x", "y", "width", "height", "score")[:n_columns]
    x, y, width, height, *fifth = _columns(table, names)
    extra = {} if np.array_equal(width, height) else {"Width": np.abs(width), "Height": np.abs(height)}
    scores = fifth[0] if fifth else None
    notes: tuple[str, ...] = ()
    if scores is not None and set(np.unique(scores).tolist()) <= EMAN_FLAGS:
        notes = (HELIX_NOTE,) if np.isin(scores, HELIX_ENDS).any() else ()
        extra["flag"], scores = scores, None
    size = sizes_of_boxes(width, height)
    return Picks(
        centers_of_boxes(x, y, width, height, reading.origin or "corner"),
        object_column([""] * len(x)),
        scores,
        size if (size > 0).all() else None,
        extra=extra,
        file_format="box",
        notes=notes,
    )


def read_old_cbox(path: Path, text: str, reading: Reading = AS_RECOGNIZED) -> Picks:
    """The first ``.cbox`` of crYOLO: seven columns without a header.

    Raises:
        DataError: a line has another number of values than the first, or one is not a number.
    """
    table = read_text_table(path, text, named=False)
    if table.rows and len(table.rows[0]) < len(_OLD_CBOX):
        raise DataError(
            f"{path}: line {table.lines[0]} has {len(table.rows[0])} values; an old .cbox has seven"
        )
    columns = _columns(table, _OLD_CBOX) if table.rows else []
    return _from_cbox(path, dict(zip(_OLD_CBOX, map(short_texts, columns), strict=False)), reading)


def _columns(table: TextTable, names: Sequence[str]) -> list[NDArray[np.float64]]:
    """The first columns (n,) of a table of bare numbers."""
    texts = decimal_points(table, [table.column(i) for i in range(len(names))])
    return [numbers(table.path, name, column, table.where) for name, column in zip(names, texts, strict=True)]


def holds_boxes(table: Table) -> bool:
    """Whether a table of a STAR file is crYOLO's."""
    return {"CoordinateX", "CoordinateY", "Width", "Height"} <= table.columns.keys()


def read_cbox(path: Path, tables: Sequence[Table], reading: Reading = AS_RECOGNIZED) -> Picks:
    """A ``.cbox`` of crYOLO: a STAR file with a block ``data_cryolo``.

    Raises:
        DataError: no such table, or a corner or size is not a number.
    """
    table = next(filter(holds_boxes, tables), None)
    if table is None:
        raise DataError(
            f"{path}: no table with _CoordinateX, _CoordinateY, _Width and _Height; check the file"
        )
    return _from_cbox(path, dict(table.columns), reading)


def _from_cbox(path: Path, columns: dict[str, Sequence[str]], reading: Reading) -> Picks:
    if not columns or not len(columns["CoordinateX"]):
        return no_picks("cbox")

    def number(name: str, missing: bool = False) -> NDArray[np.float64]:
        return numbers(path, name, columns[name], lambda i: f"row {i + 1}", missing)

    x, y, width, height = (number(name) for name in ("CoordinateX", "CoordinateY", "Width", "Height"))
    size = sizes_of_boxes(width, height)
    if {"EstWidth", "EstHeight"} <= columns.keys():
        estimate = (number("EstWidth", missing=True) + number("EstHeight", missing=True)) / 2
        size = np.where(np.isnan(estimate), size, estimate)
    scores = number("Confidence", missing=True) if "Confidence" in columns else None
    own = ("CoordinateX", "CoordinateY", "Confidence")
    return Picks(
        centers_of_boxes(x, y, width, height, reading.origin or "corner"),
        object_column([""] * len(x)),
        None if scores is None or np.isnan(scores).all() else scores,
        size if (size > 0).all() else None,
        extra={name: object_column(values) for name, values in columns.items() if name not in own},
        file_format="cbox",
    )


def box_text(path: Path, picks: Picks) -> str:
    """EMAN's ``.box``: four columns, or five with scores.

    Raises:
        DataError: a pick has no diameter.
    """
    width, height = _sizes(path, picks)
    y, x = picks.centers_yx.T
    columns = [short_texts(np.round(c, DECIMALS)) for c in (x - width / 2, y - height / 2, width, height)]
    fifth = picks.scores if picks.scores is not None else _as_numbers(picks, "flag")
    if fifth is not None:
        columns.append(short_texts(np.nan_to_num(fifth, nan=0.0)))
    return "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def cbox_text(path: Path, picks: Picks) -> str:
    """A ``.cbox`` of crYOLO, format 1.0.

    Raises:
        DataError: a pick has no diameter.
    """
    width, height = _sizes(path, picks)
    y, x = picks.centers_yx.T
    known = {
        "CoordinateX": number_texts(x - width / 2),
        "CoordinateY": number_texts(y - height / 2),
        "Width": number_texts(width),
        "Height": number_texts(height),
    }
    if picks.scores is not None:
        known["Confidence"] = number_texts(picks.scores)
    if "EstWidth" not in picks.extra and picks.diameters_px is not None:
        known["EstWidth"] = known["EstHeight"] = number_texts(picks.diameters_px)
    columns = {name: known.get(name) or _kept(picks, name) for name in (*CBOX_LABELS, "filamentid")}
    if "filamentid" not in picks.extra:
        del columns["filamentid"]
    table = table_text("cryolo", columns).removeprefix(VERSION)
    return _CBOX_HEADER + table + _CBOX_END


def _kept(picks: Picks, name: str) -> list[str]:
    values = picks.extra.get(name)
    if values is None or values.ndim > 1:
        return ["<NA>"] * len(picks)
    return [str(value) or "<NA>" for value in values.tolist()]


def _sizes(path: Path, picks: Picks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Width and height (n,) in px: as the file of boxes had them, else the diameter."""
    width, height = _as_numbers(picks, "Width"), _as_numbers(picks, "Height")
    if width is None or height is None:
        width = height = diameters(path, picks)
    return width, height


def diameters(path: Path, picks: Picks) -> NDArray[np.float64]:
    """Particle diameters (n,) in px, which boxes are made as large as.

    Raises:
        DataError: a pick has no diameter.
    """
    sizes = picks.diameters_px if len(picks) else np.empty(0)
    if sizes is None or not (sizes > 0).all():
        raise DataError(f"{path}: boxes need a size and the picks have no diameter; give one (--diameter-px)")
    return sizes


def _as_numbers(picks: Picks, name: str) -> NDArray[np.float64] | None:
    """A column (n,) that came from boxes, as numbers; None where it is not there or not all numbers."""
    try:
        values = np.asarray(picks.extra[name], dtype=np.float64)
    except (KeyError, ValueError, TypeError):
        return None
    return values if values.ndim == 1 and np.isfinite(values).all() else None
