"""The table of a project's micrographs."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from cryoquery.config import in_one_line
from cryoquery.errors import DataError
from cryoquery.storage.atomic import write_table

MICROGRAPHS_FILE = "micrographs.csv"
Known = Annotated[float | None, BeforeValidator(lambda value: None if value == "" else value)]
"""A number, or an empty cell."""


@dataclass(frozen=True)
class MicrographRow:
    """One micrograph of a project."""

    name: str
    """Unique in the project: the stem of its file, with its folder where stems are equal."""
    path: str
    """Of its file, from the project's ``micrographs_folder``."""
    height_px: int
    width_px: int
    pixel_size: Known
    """Å/px, where known."""
    group: str
    defocus_um: Known
    """Underfocus in µm, where known."""
    ice: Known
    """Ice thickness in whatever unit the table had, where known."""
    stated: str
    """The path as it was given, which coordinate files name the micrograph by."""


def write_rows(path: Path, rows: Iterable[MicrographRow]) -> None:
    """Write the table, whole or not at all."""
    header = [field.name for field in dataclasses.fields(MicrographRow)]
    write_table(path, header, map(dataclasses.astuple, rows))


def read_rows(path: Path) -> list[MicrographRow]:
    """Read the table.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return TypeAdapter(list[MicrographRow]).validate_python(list(csv.DictReader(stream)))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; restore it from a copy of the project") from None
    except (OSError, ValueError, csv.Error) as error:
        why = in_one_line(error) if isinstance(error, ValidationError) else repr(error)
        raise DataError(f"{path}: cannot be read as the table of micrographs ({why})") from None
