"""Columns of text from a file, turned into numbers and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError

NO_VALUE = frozenset(("", "<NA>", "NA", "N/A", ".", "?", "None", "null", "nan", "NaN"))
"""What programs write for a number that is not there."""

DECIMALS = 6
"""Decimals of a number that is written: RELION's six."""


def numbers(
    path: Path,
    name: str,
    texts: Sequence[str],
    where: Callable[[int], str],
    missing: bool = False,
) -> NDArray[np.float64]:
    """A column (n,) of numbers.

    Args:
        path: the file, for the message.
        name: of the column, for the message.
        texts: (n,).
        where: what to call a row in the message, from its index.
        missing: whether a value may be missing; it is NaN then.

    Raises:
        DataError: a text is no finite number.
    """
    try:
        if "_" in "".join(texts):  # Python's own way to write 1512 as 1_512
            raise ValueError
        values = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        values = np.array(list(map(number, texts)), dtype=np.float64)
    good = np.isfinite(values)
    if good.all():
        return values
    for row in np.flatnonzero(~good).tolist():
        text = texts[row].strip()
        if not (missing and text in NO_VALUE):
            raise DataError(
                f"{path}: {where(row)}, column {name}: {text[:40]!r} is not a number; correct that line"
            )
    return values


def number(text: str) -> float:
    """The number that a text is; NaN where it is none."""
    try:
        return float(text) if "_" not in text else np.nan
    except ValueError:
        return np.nan


def number_texts(values: NDArray[np.float64]) -> list[str]:
    """Numbers (n,) with six decimals; NaN is ``<NA>``."""
    texts = list(map(f"%.{DECIMALS}f".__mod__, values.tolist()))
    for row in np.flatnonzero(np.isnan(values)).tolist():
        texts[row] = "<NA>"
    return texts


def short_texts(values: NDArray[np.float64]) -> list[str]:
    """Numbers (n,) as short as they can be said; NaN is empty."""
    return [
        "" if value != value else str(int(value)) if value.is_integer() else repr(value)
        for value in values.tolist()
    ]


def object_column(values: Sequence[object]) -> NDArray[np.object_]:
    """A column (n,) of texts, or of whatever it is, lists included, one thing per row."""
    return np.fromiter(values, dtype=object, count=len(values))
