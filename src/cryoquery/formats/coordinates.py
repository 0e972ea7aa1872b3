"""Coordinates of particles. Inside the package they are (y, x) pixels, first row on top, 0 in its center."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.records import write_text

CSV_X, CSV_Y, CSV_DIAMETER = "X-Coordinate", "Y-Coordinate", "Diameter"


def read_coordinates(path: Path | str, diameter_px: float | None = None) -> NDArray[np.float64]:
    """Read the centers of particles: (n, 3) rows (y, x, diameter) in pixels of the micrograph.

    The format follows from the suffix; see `COORDINATE_SUFFIXES`. A file may hold no particles.
    ``diameter_px`` stands in for the diameter where the file does not state one.

    Raises:
        DataError: the file is missing, of an unknown kind, or holds something that is not a number.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: unknown suffix {path.suffix!r}; coordinates are {' '.join(COORDINATE_SUFFIXES)}"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        rows = reader(path, diameter_px)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); copy it again") from None
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def write_coordinates(path: Path | str, particles: NDArray[np.floating]) -> None:
    """Write (n, 3) rows (y, x, diameter) in pixels, whole or not at all.

    Raises:
        DataError: the suffix is unknown.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise DataError(f"{path}: unknown suffix {path.suffix!r}; coordinates are {' '.join(_WRITERS)}")
    write_text(path, writer(np.asarray(particles, dtype=np.float64).reshape(-1, 3)))


def _read_csv(path: Path, diameter_px: float | None) -> list[tuple[float, float, float]]:
    """CryoPPP's table: one header line with at least X-Coordinate, Y-Coordinate and Diameter."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        lines = csv.reader(stream)
        header = [name.strip().lower() for name in next(lines, [])]
        if not header:
            raise DataError(f"{path}: empty; the first line must be {CSV_X},{CSV_Y},{CSV_DIAMETER}")
        places: dict[str, int] = {}
        for name in (CSV_Y, CSV_X, CSV_DIAMETER):
            if name.lower() in header:
                places[name] = header.index(name.lower())
            elif name != CSV_DIAMETER or diameter_px is None:
                raise DataError(f"{path}: no column {name} in its first line ({','.join(header)[:80]})")
        rows = []
        for line in lines:
            if any(text.strip() for text in line):
                found = {name: _number(path, lines.line_num, name, line, at) for name, at in places.items()}
                rows.append((found[CSV_Y], found[CSV_X], found.get(CSV_DIAMETER, diameter_px or 0.0)))
    return rows


def _number(path: Path, line_number: int, column: str, line: list[str], at: int) -> float:
    text = line[at].strip() if at < len(line) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{path}: line {line_number}, column {column}: {text!r} is not a number; correct that line"
        )
    return value


def _csv_text(particles: NDArray[np.float64]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((CSV_X, CSV_Y, CSV_DIAMETER))
    for y, x, diameter in particles.tolist():
        writer.writerow([int(v) if v.is_integer() else v for v in (x, y, diameter)])
    return text.getvalue()


_READERS: dict[str, Callable[[Path, float | None], list[tuple[float, float, float]]]] = {".csv": _read_csv}
_WRITERS: dict[str, Callable[[NDArray[np.float64]], str]] = {".csv": _csv_text}

COORDINATE_SUFFIXES = tuple(_READERS)
