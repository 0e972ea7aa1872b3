"""Defocus, ice and groups of micrographs, as a STAR or CSV table states them."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryoquery.errors import DataError
from cryoquery.formats import match_micrographs, micrograph_stem, read_optics_pixel_size
from cryoquery.formats.columns import numbers
from cryoquery.formats.matching import nearest
from cryoquery.formats.recognize import decode
from cryoquery.formats.star import read_tables
from cryoquery.formats.text_table import decimal_points, read_text_table

NAME = ("rlnmicrographname", "micrograph", "micrograph_name", "name", "path", "file")
DEFOCUS_ANGSTROM = ("rlndefocusu", "rlndefocusv", "defocus_angstrom", "defocus_a", "defocus_å")
DEFOCUS_UM = ("defocus_um", "defocus_µm", "defocus_μm", "defocus_micrometer")
DEFOCUS = ("defocus", "defocusu", "defocusv")
"""Without a unit: their values tell it, see `MAX_DEFOCUS_UM`."""
ICE = ("rlnicethickness", "rlnmicrographicethickness", "ice", "ice_thickness", "ice_nm", "ice_thickness_nm")
GROUP = ("group", "rlnopticsgroupname", "rlnopticsgroup", "optics_group", "exposure_group")
"""Names of columns, in lower case, ``_`` for what is no letter or digit; the first that is there counts.

Of a defocus the kind that is there first counts, and of the columns of that kind their mean."""

ANGSTROM_PER_UM = 1e4
MAX_DEFOCUS_UM = 100.0
"""No micrograph is taken that far from focus, and none so near that it would be less in Å."""


@dataclass(frozen=True)
class Condition:
    """What a table says of one micrograph."""

    defocus_um: float | None
    """Underfocus in µm."""
    ice: float | None
    group: str | None


@dataclass(frozen=True)
class Conditions:
    """A table of micrographs."""

    path: Path
    rows: Mapping[str, Condition]
    """By the name that the table has for the micrograph."""
    pixel_size: float | None
    """Å/px by the optics groups of a STAR file, where there are any."""

    def match(self, paths: Sequence[Path]) -> dict[Path, Condition]:
        """The rows of those micrographs that the table knows.

        Of several names that mean one micrograph those of its stem and of most of its folders count.

        Raises:
            DataError: it has no rows, knows none of them, a name of it fits several, or several names with
                different values fit one.
        """
        if not self.rows:
            raise DataError(f"{self.path}: names columns and has no rows; copy it again")
        found = match_micrographs(self.rows, paths, allow_missing=True)
        if not found:
            raise DataError(
                f"{self.path}: knows none of the micrographs (it begins with {next(iter(self.rows), '')!r}, "
                f"they with {paths[0].name!r}); check the names"
            )
        names: dict[Path, list[str]] = defaultdict(list)
        for name, path in found.items():
            names[path].append(name)
        return {path: self._row(path, stated) for path, stated in names.items()}

    def _row(self, path: Path, names: Sequence[str]) -> Condition:
        """The row of a micrograph that goes by these names."""
        equal = [name for name in names if micrograph_stem(name) == micrograph_stem(path)]
        first, *others = nearest(path, equal or names)
        for other in others:
            if self.rows[other] != self.rows[first]:
                raise DataError(
                    f"{self.path}: {first!r} and {other!r} both mean {path} and have different values; "
                    "keep one of the rows"
                )
        return self.rows[first]


def read_conditions(path: Path) -> Conditions:
    """Read a STAR file such as RELION's ``micrographs_ctf.star``, or a CSV file with a line of names.

    Raises:
        DataError: the file is missing, damaged, names no micrographs, names one twice with
            different values, or states a value that is no number or of which the unit cannot be told.
    """
    try:
        text = decode(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    pixel_size = None
    if path.suffix.lower() == ".star":
        tables = [_lowered(table.columns) for table in read_tables(path, text)]
        columns = next((table for table in tables if _first(table, NAME)), None)
        optics = _optics_names(tables)
        with suppress(DataError):  # no optics groups, or none that say it
            pixel_size = read_optics_pixel_size(path)
    else:
        columns, optics = _read_csv(path, text), {}
    if columns is None or (name := _first(columns, NAME)) is None:
        raise DataError(f"{path}: no column names the micrographs, such as rlnMicrographName or micrograph")
    defocus, ice = _defocus(path, columns), _numbers(path, columns, _first(columns, ICE))
    group = _first(columns, GROUP)
    rows: dict[str, Condition] = {}
    for i, stated in enumerate(columns[name]):
        row = Condition(
            defocus[i] if defocus else None,
            ice[i] if ice else None,
            optics.get(columns[group][i], columns[group][i]) if group else None,
        )
        if rows.setdefault(stated, row) != row:
            raise DataError(
                f"{path}: names micrograph {stated!r} twice, with different values; keep one of the rows"
            )
    return Conditions(path, rows, pixel_size)


def _lowered(columns: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {re.sub(r"\W+", "_", name.lower()).strip("_"): values for name, values in columns.items()}


def _first(columns: Mapping[str, Sequence[str]], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _read_csv(path: Path, text: str) -> dict[str, Sequence[str]]:
    table = read_text_table(path, text, named=True)
    if not table.names:
        raise DataError(f"{path}: empty; it must have a line of column names")
    columns = _lowered({name: table.column(i) for i, name in enumerate(table.names)})
    of_numbers = [name for name in (*DEFOCUS_ANGSTROM, *DEFOCUS_UM, *DEFOCUS, *ICE) if name in columns]
    texts = decimal_points(table, [columns[name] for name in of_numbers])
    return columns | dict(zip(of_numbers, texts, strict=True))


def _optics_names(tables: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, str]:
    """Names of the optics groups by their number."""
    for table in tables:
        if {"rlnopticsgroup", "rlnopticsgroupname"} <= table.keys():
            return dict(zip(table["rlnopticsgroup"], table["rlnopticsgroupname"], strict=True))
    return {}


def _defocus(path: Path, columns: Mapping[str, Sequence[str]]) -> list[float | None] | None:
    """Underfocus in µm, positive, whatever sign the table gives it; the unit is what the column's name says.

    Of a column without one in its name, values that are too large to be µm are Å.

    Raises:
        DataError: a value is no number, or one is too large to be µm and another too small to be Å.
    """
    kinds = (DEFOCUS_ANGSTROM, DEFOCUS_UM, DEFOCUS)
    names = next((kind for kind in kinds if _first(columns, kind)), ())
    stated = [_numbers(path, columns, name) or [] for name in names if name in columns]
    if not stated:
        return None
    in_angstrom = names is DEFOCUS_ANGSTROM
    if names is DEFOCUS and (sizes := sorted(abs(value) for values in stated for value in values if value)):
        in_angstrom = sizes[-1] > MAX_DEFOCUS_UM
        if in_angstrom and sizes[0] <= MAX_DEFOCUS_UM:
            raise DataError(
                f"{path}: {_first(columns, DEFOCUS)}={sizes[0]:g} and {sizes[-1]:g} cannot be of one unit; "
                "correct them, or name the column defocus_um or defocus_angstrom"
            )
    means: list[float | None] = []
    for row in zip(*stated, strict=True):
        known = [value for value in row if value is not None]
        mean = abs(sum(known)) / len(known) if known else None
        means.append(mean / ANGSTROM_PER_UM if mean is not None and in_angstrom else mean)
    return means


def _numbers(path: Path, columns: Mapping[str, Sequence[str]], name: str | None) -> list[float | None] | None:
    """A column of numbers; those that are not there are None.

    Raises:
        DataError: a value is no finite number.
    """
    if name is None:
        return None
    found = numbers(path, name, columns[name], lambda i: f"row {i + 1}", missing=True)
    return [None if math.isnan(value) else value for value in found.tolist()]
