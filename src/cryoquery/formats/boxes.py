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
from cryoquery.formats.star import VERSION, Table, table_text

EMAN_FLAGS = frozenset((0.0, -1.0, -2.0, -3.0))
"""What EMAN 1 has in the fifth column: an ordinary box, or the ends of a helix. Not a score."""

CBOX_LABELS = (
    *("CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth"),
    *("EstWidth", "EstHeight", "Confidence", "NumBoxes", "Angle"),
)
"""Labels of crYOLO's format 1.0, in its order."""

_OLD_CBOX = ("CoordinateX", "CoordinateY", "Width", "Height", "Confidence", "EstWidth", "EstHeight")
_CBOX_HEADER = "\ndata_global\n\n_cbox_format_version 1.0\n\n"
_CBOX_END = "\ndata_cryolo_include\n\nloop_\n_slice_index #1\n\n"


def box_rows(text: str) -> list[tuple[int, list[str]]]:
    """Lines that hold something, with their number, split into values."""
    lines = enumerate(text.splitlines(), start=1)
    split = ((number, line.replace(",", " ").split()) for number, line in lines)
    return [(number, values) for number, values in split if values and not values[0].startswith("#")]


def read_box(path: Path, text: str) -> Picks:
    """EMAN's ``.box``: x, y of the corner, width, height, and perhaps a score.

    Raises:
        DataError: a line has another number of values than the first, or one is not a number.
    """
    rows = box_rows(text)
    if not rows:
        return no_picks("box")
    n_columns = len(rows[0][1])
    if n_columns not in (4, 5):
        raise DataError(
            f"{path}: line {rows[0][0]} has {n_columns} values; a .box has x y width height [score]"
        )
    x, y, width, height, *fifth = _columns(path, rows, ("x", "y", "width", "height", "score")[:n_columns])
    extra = {} if np.array_equal(width, height) else {"Width": width, "Height": height}
    scores = fifth[0] if fifth else None
    if scores is not None and set(np.unique(scores).tolist()) <= EMAN_FLAGS:
        extra["flag"], scores = scores, None
    size = np.maximum(width, height)
    return Picks(
        np.column_stack([y + height / 2, x + width / 2]),
        object_column([""] * len(rows)),
        scores,
        size if (size > 0).all() else None,
        extra=extra,
        file_format="box",
    )


def read_old_cbox(path: Path, text: str) -> Picks:
    """The first ``.cbox`` of crYOLO: seven columns without a header.

    Raises:
        DataError: a line has another number of values than the first, or one is not a number.
    """
    rows = box_rows(text)
    if rows and len(rows[0][1]) < len(_OLD_CBOX):
        raise DataError(f"{path}: line {rows[0][0]} has {len(rows[0][1])} values; an old .cbox has seven")
    _columns(path, rows, _OLD_CBOX)
    columns = zip(*(values for _, values in rows), strict=True)
    return _from_cbox(path, dict(zip(_OLD_CBOX, columns, strict=False)))


def _columns(
    path: Path, rows: Sequence[tuple[int, list[str]]], names: Sequence[str]
) -> list[NDArray[np.float64]]:
    """Columns (n,) of numbers of lines that all have as many values as the first."""
    n_values = len(rows[0][1]) if rows else 0
    for number, values in rows:
        if len(values) != n_values:
            raise DataError(
                f"{path}: line {number} has {len(values)} values where the first has {n_values}; correct it"
            )

    def where(i: int) -> str:
        return f"line {rows[i][0]}"

    return [numbers(path, name, [values[i] for _, values in rows], where) for i, name in enumerate(names)]


def holds_boxes(table: Table) -> bool:
    """Whether a table of a STAR file is crYOLO's."""
    return {"CoordinateX", "CoordinateY", "Width", "Height"} <= table.columns.keys()


def read_cbox(path: Path, tables: Sequence[Table]) -> Picks:
    """A ``.cbox`` of crYOLO: a STAR file with a block ``data_cryolo``.

    Raises:
        DataError: no such table, or a corner or size is not a number.
    """
    table = next(filter(holds_boxes, tables), None)
    if table is None:
        raise DataError(
            f"{path}: no table with _CoordinateX, _CoordinateY, _Width and _Height; check the file"
        )
    return _from_cbox(path, dict(table.columns))


def _from_cbox(path: Path, columns: dict[str, Sequence[str]]) -> Picks:
    if not columns or not len(columns["CoordinateX"]):
        return no_picks("cbox")

    def number(name: str, missing: bool = False) -> NDArray[np.float64]:
        return numbers(path, name, columns[name], lambda i: f"row {i + 1}", missing)

    x, y, width, height = (number(name) for name in ("CoordinateX", "CoordinateY", "Width", "Height"))
    size = np.maximum(width, height)
    if {"EstWidth", "EstHeight"} <= columns.keys():
        estimate = (number("EstWidth", missing=True) + number("EstHeight", missing=True)) / 2
        size = np.where(np.isnan(estimate), size, estimate)
    scores = number("Confidence", missing=True) if "Confidence" in columns else None
    own = ("CoordinateX", "CoordinateY", "Confidence")
    return Picks(
        np.column_stack([y + height / 2, x + width / 2]),
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
