"""Tables of text with a header line: CryoPPP's ``.csv`` and Topaz's ``.txt``. Both hold centers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoquery.errors import DataError
from cryoquery.formats.columns import numbers, object_column, short_texts
from cryoquery.formats.names import micrograph_stem
from cryoquery.formats.picks import Picks

MAX_COLUMNS = 1000
"""Rows that lack values are filled up, so that many columns would take much memory."""


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are called; the names are compared without regard to case."""

    name: str
    x: str
    y: str
    delimiter: str
    micrograph: str | None = None
    diameter: str | None = None
    score: str = "score"


CRYOPPP = Layout("csv", "X-Coordinate", "Y-Coordinate", ",", diameter="Diameter", score="Score")
TOPAZ = Layout("txt", "x_coord", "y_coord", "\t", micrograph="image_name")
PLAIN = Layout("csv", "x", "y", ",", diameter="diameter", score="score")
"""What people write by hand; it is read, never written."""
LAYOUTS = (CRYOPPP, TOPAZ, PLAIN)
MICROGRAPH_COLUMNS = ("micrograph", "micrograph_name", "image_name")
"""A column of one of these names says which micrograph a row is of, in any layout."""


def layout_of(header: str) -> Layout | None:
    """The layout that a first line has at least one coordinate of."""
    names = {name.strip().lower() for name in header.split(_delimiter(header))}
    return next((layout for layout in LAYOUTS if {layout.x.lower(), layout.y.lower()} & names), None)


def read_table(path: Path, text: str, layout: Layout) -> Picks:
    """Centers of a table; columns of other names are carried along.

    Raises:
        DataError: the file is empty, lacks a column, or a coordinate is not a number.
    """
    header, numbered = _read_rows(path, text)
    expected = [n for n in (layout.micrograph, layout.x, layout.y, layout.diameter) if n]
    if not header:
        raise DataError(f"{path}: empty; the first line must be {layout.delimiter.join(expected)}")
    lowered = [name.lower() for name in header]
    for name in filter(None, (layout.micrograph, layout.y, layout.x)):
        if name.lower() not in lowered:
            raise DataError(f"{path}: no column {name} in its first line ({','.join(header)[:80]})")
    columns = _columns(numbered, len(header))

    def where(i: int) -> str:
        return f"line {numbered[i][0]}"

    def take(name: str | None) -> Sequence[str] | None:
        return columns[lowered.index(name.lower())] if name and name.lower() in lowered else None

    named = layout.micrograph or next((name for name in MICROGRAPH_COLUMNS if name in lowered), None)
    own = {n.lower() for n in (layout.x, layout.y, named, layout.diameter, layout.score) if n}
    values = {
        name: numbers(path, name, column, where, missing=name not in (layout.y, layout.x))
        for name in (layout.y, layout.x, layout.diameter, layout.score)
        if name and (column := take(name)) is not None
    }
    scores = values.get(layout.score)
    return Picks(
        np.column_stack([values[layout.y], values[layout.x]]),
        object_column(take(named) or [""] * len(numbered)),
        None if scores is None or np.isnan(scores).all() else scores,
        values.get(layout.diameter or ""),
        extra={
            name: object_column(c) for name, c in zip(header, columns, strict=True) if name.lower() not in own
        },
        file_format=layout.name,
    )


def _read_rows(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names in the first line, and the other lines that hold something, with their numbers."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = _delimiter(first)
    try:
        if delimiter is None:
            split = [(n, line.split()) for n, line in enumerate(text.splitlines(), start=1)]
        else:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            split = [(reader.line_num, values) for values in reader]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as text ({error}); copy it again") from None
    rows = [(n, values) for n, values in split if any(map(str.strip, values))]
    if rows and len(rows[0][1]) > MAX_COLUMNS:
        raise DataError(f"{path}: more than {MAX_COLUMNS} columns; damaged, copy it again")
    return ([name.strip() for name in rows[0][1]], rows[1:]) if rows else ([], [])


def _columns(numbered: Sequence[tuple[int, list[str]]], width: int) -> list[list[str]]:
    """Values by column; rows that are too short are filled with empty texts."""
    rows = [(values + [""] * (width - len(values)))[:width] for _, values in numbered]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _delimiter(header: str) -> str | None:
    """A tab, a comma, or None for any white space."""
    return next((mark for mark in "\t,;" if mark in header), None)


def table_text(picks: Picks, layout: Layout) -> str:
    """The table of a layout, with the scores and whatever else the file held in further columns.

    Topaz names micrographs by their stem, without folders and endings.
    """
    columns: dict[str, Sequence[str]] = {}
    if layout.micrograph:
        stems = {name: micrograph_stem(name) for name in set(picks.micrographs.tolist())}
        columns[layout.micrograph] = [stems[name] for name in picks.micrographs.tolist()]
    columns[layout.x] = short_texts(picks.centers_yx[:, 1])
    columns[layout.y] = short_texts(picks.centers_yx[:, 0])
    if layout.diameter and picks.diameters_px is not None:
        columns[layout.diameter] = short_texts(picks.diameters_px)
    if picks.scores is not None:
        columns[layout.score] = short_texts(picks.scores)
    lowered = {name.lower() for name in columns}
    for name, values in picks.extra.items():
        if values.ndim == 1 and "/" not in name and name.lower() not in lowered:
            columns[name] = list(map(str, values.tolist()))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=layout.delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
