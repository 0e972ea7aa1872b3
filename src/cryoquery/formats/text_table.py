"""Tables of text of any dialect: commas, semicolons, tabs or spaces, quotes, with names or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoquery.errors import DataError
from cryoquery.formats.columns import NO_VALUE, number

_DECIMAL_COMMA = re.compile(r"^[+-]?\d*,\d+")
_THOUSANDS = re.compile(r"^[+-]?[1-9]\d{0,2}[,.]\d{3}")
LARGE = 100
"""From here on numbers of a table are large enough for others in it to have marks of thousands."""
MANY_MARKED = 2
"""So many numbers of three decimals beside large ones without any are not by chance."""
MAX_COLUMNS = 1000
"""More than a table of particles or micrographs has."""
SHORTEST_COUNT = 2
"""Rows that are numbered from 1 on, from which they have names and not a column more."""


@dataclass(frozen=True)
class TextTable:
    """Rows of texts, all as long as there are columns."""

    path: Path
    names: tuple[str, ...]
    """Of the columns, as the first line has them; empty where it is a row of numbers."""
    rows: list[list[str]]
    lines: list[int]
    """(n,) in which line of the file a row ends."""
    delimiter: str
    """Between values; a space for any white space."""

    def where(self, row: int) -> str:
        """What to call a row in a message."""
        return f"line {self.lines[row]}"

    def column(self, index: int) -> list[str]:
        """A column (n,)."""
        return [row[index] for row in self.rows]


def delimiter_of(line: str) -> str:
    """What stands between the values of a line."""
    return next((mark for mark in "\t;," if mark in line), " ")


def _between_numbers(line: str) -> str:
    """What stands between bare numbers: commas with nothing else, else blanks, and commas are decimal."""
    values = line.split()
    if ";" in line:
        return ";"
    return "," if "," in line and all(value.endswith(",") for value in values[:-1]) else " "


def first_line(text: str) -> str:
    """The first line that holds something and is no comment."""
    lines = (line for line in text[:100_000].splitlines() if line.strip())
    return next((line for line in lines if not line.lstrip().startswith("#")), "")


def split_line(line: str) -> list[str]:
    """The values of a line, without the quotes around them."""
    try:
        return next(_split([line], delimiter_of(line)))[1]
    except (csv.Error, StopIteration):
        return []


def is_number(text: str) -> bool:
    """Whether a value may stand in a column of numbers."""
    return text in NO_VALUE or number(text) == number(text) or bool(_DECIMAL_COMMA.fullmatch(text))


def read_text_table(path: Path, text: str, *, named: bool | None = None) -> TextTable:
    """The rows of a table.

    R writes a value more per row than names: the name of the row. It is left out where that is clear.

    Args:
        path: for messages.
        text: of the file.
        named: whether the first line is names; None: it is, unless all of it are numbers.

    Raises:
        DataError: a quote is not closed, or a row has more or fewer values than the first line.
    """
    lines = text.splitlines()
    if named is False:
        lines = ["" if line.lstrip().startswith("#") else line for line in lines]
    is_row = (bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)
    start = next((i for i, found in enumerate(is_row) if found), len(lines))
    delimiter = " "
    if start < len(lines):
        delimiter = (_between_numbers if named is False else delimiter_of)(lines[start])
    rows, ends = [], []
    try:
        for n, own in _split(lines[start:], delimiter):
            if not (joined := "".join(own)):
                continue
            if "\n" in joined:
                where = f"line {start + n}: a quote that begins before it"
                raise DataError(f"{path}: {where} is not closed; correct it")
            rows.append(own)
            ends.append(start + n)
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); correct its quotes") from None
    if not rows:
        return TextTable(path, (), [], [], delimiter)
    has_names = not all(map(is_number, rows[0])) if named is None else named
    names = tuple(_trimmed(rows[0], 1)) if has_names else ()
    width, first = len(names or rows[0]), ends[0]
    if width > MAX_COLUMNS:
        raise DataError(f"{path}: more than {MAX_COLUMNS} columns; damaged, copy it again")
    if has_names:
        del rows[0], ends[0]
    values = [own if len(own) <= width else _trimmed(own, width) for own in rows]
    if has_names and values and all(len(own) == width + 1 for own in values):
        quoted = all(lines[n - 1].lstrip().startswith('"') for n in ends)
        if quoted or (delimiter != "," and _count_up([own[0] for own in values])):
            values = [own[1:] for own in values]
    for n, own in zip(ends, values, strict=True):
        if len(own) != width:
            raise DataError(_ragged(path, n, len(own), first, width, has_names))
    return TextTable(path, names, values, ends, delimiter)


def decimal_points(table: TextTable, columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Columns of numbers with decimal commas, if that is what they have, turned into points.

    Args:
        table: that they are of.
        columns: of numbers, x and y first.

    Raises:
        DataError: ``1,512`` may be 1.512 or 1512.
    """
    texts = [text for column in columns for text in column]
    marked = [text for text in texts if "," in text]
    if marked and all(map(_DECIMAL_COMMA.fullmatch, marked)) and not any("." in text for text in texts):
        if all(map(_THOUSANDS.fullmatch, marked)):
            raise DataError(_ambiguous(table.path, marked[0]))
        return [[text.replace(",", ".") for text in column] for column in columns]
    places = [text for column in columns[:2] for text in column]
    dotted = [text for text in places if "." in text]
    large = any(text.isdecimal() and number(text) >= LARGE for text in places)
    enough = 1 if table.delimiter == ";" else MANY_MARKED
    if large and len(dotted) >= enough and all(map(_THOUSANDS.fullmatch, dotted)):
        raise DataError(_ambiguous(table.path, dotted[0]))
    return [list(column) for column in columns]


def _ambiguous(path: Path, text: str) -> str:
    return (
        f"{path}: {text} may be {text.replace(',', '.')} or {re.sub('[,.]', '', text)}; write numbers with a "
        "decimal point and without marks of thousands"
    )


def _split(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, values) of each row; values without blanks at their ends."""
    plain = (" ".join(line.split()) for line in lines) if delimiter == " " else lines
    ended = map("{}\n".format, plain)
    reader = csv.reader(ended, delimiter=delimiter, skipinitialspace=True, strict=True)
    for values in reader:
        if values:
            yield reader.line_num, [one.strip(" \t\r\f\v") for one in values]


def _trimmed(values: list[str], width: int) -> list[str]:
    """A row without empty values beyond the width, which marks at the end of a line make."""
    n = len(values)
    while n > width and not values[n - 1]:
        n -= 1
    return values[:n]


def _count_up(values: Sequence[str]) -> bool:
    return len(values) >= SHORTEST_COUNT and list(values) == [str(i) for i in range(1, len(values) + 1)]


def _ragged(path: Path, line: int, n: int, first: int, width: int, has_names: bool) -> str:
    if not has_names:
        return f"{path}: line {line} has {n} values where the first has {width}; correct it"
    if n < width:
        return f"{path}: line {line} has {n} values for {width} names in line {first}; correct it"
    return (
        f"{path}: line {line} has {n} values for {width} names in line {first}; decimal commas, marks of "
        "thousands or blanks in names? Write decimal points, and put such names in quotes"
    )
