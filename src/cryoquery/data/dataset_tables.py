"""Tables of a dataset, read line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError

PARTICLE_COLUMNS = ("group", "micrograph", "y", "x", "diameter_px")


def read_particles(path: Path) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Rows (n, 3) of (y, x, diameter) by group and name of the micrograph, in pixels of it.

    Raises:
        DataError: as `table_lines`.
    """
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    with table_lines(path) as lines:
        if (header := next(lines)) != list(PARTICLE_COLUMNS):
            raise ValueError(f"columns {header}, expected {list(PARTICLE_COLUMNS)}")
        for group, micrograph, y, x, diameter in lines:
            rows.setdefault((group, micrograph), []).append((float(y), float(x), float(diameter)))
    return {key: np.array(values) for key, values in rows.items()}


@contextmanager
def table_lines(path: Path) -> Iterator[Any]:
    """The lines of a CSV file.

    Raises:
        DataError: the file is missing, or the block could not read a line: the message names it.
    """
    lines = None
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = csv.reader(stream)
            yield lines
    except FileNotFoundError:
        raise DataError(f"{path}: missing; import the dataset again") from None
    except (ValueError, IndexError, StopIteration) as error:
        at = lines.line_num if lines else 0
        raise DataError(f"{path}: line {at} cannot be read ({error}); import the dataset again") from None
