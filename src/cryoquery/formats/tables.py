"""Tables of text: CryoPPP's ``.csv``, Topaz's ``.txt``, and whatever people and programs export."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.boxes import centers_of_boxes, sizes_of_boxes
from cryoquery.formats.classes import choose_particles, without_others
from cryoquery.formats.columns import number, numbers, object_column, short_texts
from cryoquery.formats.names import micrograph_stem
from cryoquery.formats.picks import Picks
from cryoquery.formats.plausible import are_fractions
from cryoquery.formats.reading import Origin, Reading
from cryoquery.formats.relion import UNKNOWN
from cryoquery.formats.text_table import (
    TextTable,
    decimal_points,
    first_line,
    read_text_table,
    split_line,
)


@dataclass(frozen=True)
class Layout:
    """What the columns of a table that is written are called."""

    name: str
    x: str
    y: str
    delimiter: str
    micrograph: str | None = None
    diameter: str | None = None
    score: str = "score"


CRYOPPP = Layout("csv", "X-Coordinate", "Y-Coordinate", ",", diameter="Diameter", score="Score")
TOPAZ = Layout("txt", "x_coord", "y_coord", "\t", micrograph="image_name")

CENTERS = (
    *(("xcoordinate", "ycoordinate"), ("xcoord", "ycoord"), ("rlncoordinatex", "rlncoordinatey")),
    *(("centerx", "centery"), ("xcenter", "ycenter"), ("cx", "cy"), ("xc", "yc"), ("centroidx", "centroidy")),
)
EITHER = (("x", "y"), ("xpx", "ypx"))
"""Centers, or corners where there are a width and a height."""
CORNERS = (("xmin", "ymin"), ("left", "top"), ("bx", "by"), ("x0", "y0"), ("x1", "y1"))
OPPOSITE = (("xmax", "ymax"), ("right", "bottom"), ("x2", "y2"), ("x1", "y1"))
"""Names of columns for x and y, compared without case, blanks and marks; the first pair there is counts."""
OTHER_UNITS = (
    "a",
    "å",
    "ang",
    "angst",
    "angstrom",
    "ångström",
    "nm",
    "um",
    "µm",
    "mm",
    "frac",
    "rel",
    "norm",
)
"""Behind an x: what is not counted in pixels."""
NAMES = {
    "width": ("width", "w"),
    "height": ("height", "h"),
    "diameter": ("diameter", "diameterpx", "d"),
    "size": ("boxsize", "size", "box", "side", "boxsizepx"),
    "score": (
        *("score", "confidence", "conf", "probability", "prob", "figureofmerit"),
        "rlnautopickfigureofmerit",
    ),
    "micrograph": (
        *("micrograph", "micrographname", "imagename", "rlnmicrographname", "image", "filename", "file"),
        *("micrographpath", "imagepath", "path"),
    ),
    "class": (
        *("class", "classname", "category", "categoryname", "label", "labelname", "labels", "classes"),
        *("type", "kind", "object", "species", "tag", "classid", "categoryid"),
        *("isparticle", "keep", "kept", "selected", "accepted", "good", "isgood", "valid", "status"),
    ),
}
"""And for the rest."""

YOLO = ("class", "x", "y", "width", "height", "score")
PLACES = ("x", "y", "x2", "y2")
SIZES = ("width", "height", "size", "diameter")


@dataclass(frozen=True)
class _Columns:
    """Where in a table is what."""

    at: Mapping[str, int]
    """Column by `Field`, and ``x2`` and ``y2`` for the corner opposite to x and y."""
    origin: Origin
    notes: tuple[str, ...] = ()
    """How they were taken where they could be taken otherwise."""


def names_coordinates(line: str) -> bool:
    """Whether a first line has a name for a coordinate."""
    names = set(map(plain, split_line(line)))
    return any(names & set(pair) for pair in (*CENTERS, *EITHER, *CORNERS))


def holds_numbers(line: str) -> bool:
    """Whether a first line is a row of at least two numbers rather than names."""
    values = split_line(line)
    return len(values) > 1 and all(number(value) == number(value) for value in values)


def plain(name: str) -> str:
    """The name of a column without case, blanks and marks: ``X-Coordinate`` is ``xcoordinate``."""
    return "".join(filter(str.isalnum, name.lower()))


def read_table(path: Path, text: str, reading: Reading, usual: Origin = "center") -> Picks:
    """Picks of a table; columns of other names are carried along.

    Args:
        path: for messages.
        text: of the file.
        reading: what is said about it.
        usual: what columns that are called x and y hold, where they have no width and height beside them.

    Raises:
        DataError: the file is empty, says not which columns are x and y, a row has more values than there
            are names, a coordinate is not a number, or classes are not told apart.
    """
    if not reading.columns:
        _refuse_lines_before(path, text)
    table = read_text_table(path, text)
    if reading.columns:
        table, columns = _as_said(table, reading, usual)
    else:
        columns = _as_named(table, reading, usual)
    at = columns.at
    names = [name for name in (*PLACES, *SIZES, "score") if name in at]
    texts = decimal_points(table, [table.column(at[name]) for name in names])
    value = {
        name: numbers(path, _title(table, at[name]), column, table.where, missing=name not in ("x", "y"))
        for name, column in zip(names, texts, strict=True)
    }
    value, note = _in_pixels(value, reading.micrograph_shape if reading.columns else None)
    width, height = _sides(value)
    diameters = value.get("diameter", value.get("size"))
    if diameters is None and width is not None and height is not None:
        diameters = sizes_of_boxes(width, height)
    if columns.origin == "corner" and width is None:
        known = reading.diameter_px if diameters is None else diameters
        if known is None:
            raise DataError(
                f"{path}: the corners of boxes without their size; give --diameter-px, or --origin center"
            )
        width = height = np.broadcast_to(known, value["x"].shape)
    extra: dict[str, NDArray[Any]] = {name: object_column(table.column(i)) for i, name in _others(table, at)}
    if width is not None and height is not None and not np.array_equal(width, height):
        extra |= {"Width": width, "Height": height}
    scores = value.get("score")
    if scores is not None:
        scores = np.where(scores == UNKNOWN, np.nan, scores)
    n = len(table.rows)
    picks = Picks(
        centers_of_boxes(value["x"], value["y"], width, height, columns.origin),
        object_column(table.column(at["micrograph"]) if "micrograph" in at else [""] * n),
        None if scores is None or np.isnan(scores).all() else scores,
        diameters,
        extra=extra,
        file_format="txt" if "imagename" in map(plain, table.names) else "csv",
        notes=tuple(filter(None, (*(columns.notes if n else ()), note))),
    )
    if "class" not in at:
        return picks
    return without_others(picks, choose_particles(path, table.column(at["class"]), reading))


def _refuse_lines_before(path: Path, text: str) -> None:
    """Refuse names of columns that are not in the first line, or are a comment."""
    first = first_line(text)
    is_nameless = holds_numbers(first)
    if names_coordinates(first):
        return
    for n, line in enumerate(text[:10_000].split("\n"), start=1):
        bare = line.lstrip("# \t")
        names = set(map(plain, split_line(bare)))
        if bare == line and is_nameless:
            continue
        if any(set(pair) <= names for pair in (*CENTERS, *EITHER, *CORNERS)):
            remedy = "take out what stands before it" if bare == line else "take the # out"
            raise DataError(f"{path}: line {n} names the columns; {remedy}")


def _as_named(table: TextTable, reading: Reading, usual: Origin) -> _Columns:
    """The columns by their names.

    Raises:
        DataError: there are no names, or none for x and y.
    """
    if not table.rows and not table.names:
        raise DataError(f"{table.path}: empty; the first line must name the columns, such as x,y,diameter")
    if not table.names and _is_yolo(table):
        return _Columns({name: i for i, name in enumerate(YOLO) if i < len(table.rows[0])}, "center")
    if not table.names:
        raise DataError(_nameless(table))
    names = list(map(plain, table.names))
    at = {name: names.index(one) for name, known in NAMES.items() for one in known[::-1] if one in names}
    pair = next((p for p in (*CENTERS, *EITHER, *CORNERS) if set(p) <= set(names)), None)
    if pair is None:
        raise DataError(_unnamed(table, names))
    at |= {"x": names.index(pair[0]), "y": names.index(pair[1])}
    if pair in CORNERS and (
        far := next((p for p in OPPOSITE if set(p) <= set(names) and not set(p) & set(pair)), None)
    ):
        at |= {"x2": names.index(far[0]), "y2": names.index(far[1])}
        at = {name: i for name, i in at.items() if name not in ("width", "height")}  # those of the image
    notes = []
    if "class" in at and not reading.classes and not reading.ignored and _are_numbers(table, at["class"]):
        called = table.names[at.pop("class")]  # of clusters, perhaps
        if len(set(table.column(names.index(plain(called))))) > 1:
            notes = [f"numbers of column {called} not looked at; --class says which are particles"]
    for name, i in at.items():
        if names.count(names[i]) > 1:
            raise DataError(
                f"{table.path}: {names.count(names[i])} columns are called {table.names[i]}; give the "
                f"number of that for {name} with --columns"
            )
    origin: Origin | None = "center" if pair in CENTERS else "corner" if pair in CORNERS else None
    if "x2" in at and pair in CORNERS[-2:]:
        ends = ", ".join(table.names[at[name]] for name in PLACES)
        notes.append(f"{ends} taken for opposite corners of boxes; ends of helices are no particles")
    return _with_origin(table, at, reading.origin, origin, usual, notes)


def _as_said(table: TextTable, reading: Reading, usual: Origin) -> tuple[TextTable, _Columns]:
    """The columns as a person names or counts them; a first line of numbers there is a row, not names."""
    width = len(table.names) or max(map(len, table.rows), default=0)
    at = {}
    for name, said in reading.columns.items():
        lowered = [plain(one) for one in table.names]
        if said in table.names:
            at[name] = table.names.index(said)
        elif said.isdecimal() and 0 < int(said) <= width:
            at[name] = int(said) - 1
        elif plain(said) in lowered:
            at[name] = lowered.index(plain(said))
        else:
            known = ",".join(table.names)[:80] or f"{width} without names"
            raise DataError(f"{table.path}: no column {said} for {name}; its columns are {known}")
    if table.names and all(number(table.names[at[axis]]) == number(table.names[at[axis]]) for axis in "xy"):
        first = min(table.lines, default=2) - 1
        table = TextTable(
            table.path, (), [list(table.names), *table.rows], [first, *table.lines], table.delimiter
        )
    if _is_yolo(table):
        return table, _Columns({"class": 0, **at}, reading.origin or "center")
    left = [str(i + 1) for i in range(width) if i not in at.values()] if not table.names else []
    notes = [f"columns {', '.join(left)} not looked at"] if left else []
    return table, _with_origin(table, at, reading.origin, None, usual, notes)


def _with_origin(
    table: TextTable,
    at: Mapping[str, int],
    said: Origin | None,
    called: Origin | None,
    usual: Origin,
    notes: Sequence[str],
) -> _Columns:
    """What x and y are: what is said, else what they are called, else a corner where there are two sizes.

    Where columns of sizes stand beside them and nothing is said, a note tells.
    """
    is_box = {"width", "height"} <= at.keys() and "x2" not in at
    sizes = ("width", "height") if is_box else ("size",) if "size" in at and "x2" not in at else ()
    origin = said or called or ("corner" if is_box else usual)
    if said or not sizes or called == "corner":
        return _Columns(at, origin, tuple(notes))
    what, other = ("a corner of a box", "center") if origin == "corner" else ("a center", "corner")
    beside = " and ".join(_title(table, at[size]) for size in sizes)
    note = f"x, y with {beside} taken for {what} (--origin {other} if not)"
    return _Columns(at, origin, (note, *notes))


def _in_pixels(
    value: dict[str, NDArray[np.float64]], shape: tuple[int, int] | None
) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Fractions of a micrograph of known (height, width) in pixels, and a note; other numbers as they are."""
    if shape is None or not are_fractions(value["x"], value["y"]):
        return value, ""
    of_height = ("y", "y2", "height")
    scaled = {
        name: column if name == "score" else column * shape[0 if name in of_height else 1]
        for name, column in value.items()
    }
    return scaled, f"fractions of a micrograph, taken times {shape[1]} x {shape[0]} px"


def _sides(value: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray[np.float64] | None, ...]:
    """Width and height (n,) of boxes, where the table has them."""
    if "x2" in value:
        return value["x2"] - value["x"], value["y2"] - value["y"]
    both = "width" in value and "height" in value
    return (value["width"], value["height"]) if both else (None, None)


def _are_numbers(table: TextTable, i: int) -> bool:
    return all(number(text) == number(text) for text in table.column(i))


def _unnamed(table: TextTable, names: Sequence[str]) -> str:
    """What is wrong with a first line that does not name x and y in pixels; ``names``: plain ones in it."""
    shown = ",".join(table.names)[:80]
    unit = next((unit for unit in OTHER_UNITS if {f"x{unit}", f"y{unit}"} <= set(names)), None)
    if unit is not None:
        return (
            f"{table.path}: x and y in another unit than pixels ({shown}); give them in pixels, or name the "
            "columns with --columns x=…,y=… and say with --scale how many pixels one of it is"
        )
    half = next((p for p in (*CENTERS, *EITHER, *CORNERS) if set(p) & set(names)), ("x", "y"))
    missing = next(name for name in half if name not in names)
    return (
        f"{table.path}: no column {missing} in its first line ({shown}); name the columns of x and y with "
        "--columns x=…,y=…"
    )


def _title(table: TextTable, i: int) -> str:
    return table.names[i] if table.names else str(i + 1)


def _others(table: TextTable, at: Mapping[str, int]) -> list[tuple[int, str]]:
    return [(i, name) for i, name in enumerate(table.names) if name and i not in at.values()]


def _nameless(table: TextTable) -> str:
    first = ", ".join(table.rows[0])[:50]
    return (
        f"{table.path}: numbers without names of columns ({first}): centers, corners of boxes, or no "
        "coordinates at all; say with --columns x=1,y=2 which are x and y (and --origin corner), or name a "
        "file of boxes .box"
    )


def _is_yolo(table: TextTable) -> bool:
    """Whether rows are YOLO's: class, center and size as fractions of the image, perhaps a score."""
    if table.names or not table.rows or len(table.rows[0]) not in (len(YOLO) - 1, len(YOLO)):
        return False
    values = np.array([[number(text) for text in row] for row in table.rows])
    classes, rest = values[:, 0], values[:, 1:]
    return bool(
        (classes >= 0).all()
        and (classes == np.round(classes)).all()
        and ((rest >= 0) & (rest <= 1)).all()
        and (rest != np.round(rest)).any()
    )


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
