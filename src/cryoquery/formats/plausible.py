"""Whether numbers that were read can be picks on micrographs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.columns import number
from cryoquery.formats.picks import Picks

MAX_COORDINATE = 1e7
"""Pixels; what is beyond is no coordinate."""
DEPTH = frozenset(
    ("z", "zcoord", "zcoordinate", "coordinatez", "rlncoordinatez", "centerz", "zpx", "slice", "frame")
)
"""Columns of a third dimension, without case, blanks and marks."""
TOMOGRAM = "rlntomoname"
TUBES = ("rlnhelicaltubeid", "filamentid")
"""Columns that say which helix a pick is on."""


def check_plausible(path: Path, picks: Picks) -> Picks:
    """The same picks, with a note where they are ends of helices.

    Raises:
        DataError: a coordinate is larger than any micrograph; picks are of tomograms; or coordinates are
            fractions of a micrograph.
    """
    too_large = np.abs(picks.centers_yx) > MAX_COORDINATE
    if too_large.any():
        value = picks.centers_yx[too_large][0]
        raise DataError(f"{path}: a coordinate of {value:g} px; no micrograph is that large, correct it")
    columns = {"".join(filter(str.isalnum, name.lower())): column for name, column in picks.extra.items()}
    if len(picks) and (deep := next((name for name in columns if _is_deep(name, columns[name])), None)):
        raise DataError(
            f"{path}: picks in three dimensions ({deep}); cryoquery picks on micrographs, not in "
            "tomograms or stacks"
        )
    if any(_are_ends(columns[name]) for name in TUBES if name in columns):
        note = "two picks on each helix are its ends, not particles; pick along it, or leave them out"
        picks = picks.replace(notes=(*picks.notes, note))
    flat = [name for name in columns if name in DEPTH and _depths(columns[name]).any()]
    if flat:
        note = f"column {flat[0]} is the same for all picks and not looked at"
        picks = picks.replace(notes=(*picks.notes, note))
    is_alone = len(picks) == 1 and (picks.diameter_px or 0) > 1
    in_px = picks.file_format == "cs" or is_alone
    if in_px or not are_fractions(*picks.centers_yx.T):
        return picks
    raise DataError(
        f"{path}: all coordinates lie between 0 and 1: fractions of a micrograph, not pixels; multiply them "
        "by its width and height, or say which columns they are (YOLO: --columns "
        "x=2,y=3,width=4,height=5) and give micrographs of one size"
    )


def are_fractions(*coordinates: NDArray[np.float64]) -> bool:
    """Whether all coordinates (n,) lie between 0 and 1, and not only on whole pixels."""
    together = np.concatenate(coordinates)
    inside = ((together >= 0) & (together <= 1)).all()
    return bool(len(together) and inside and (together != np.round(together)).any())


def _is_deep(name: str, column: NDArray[Any]) -> bool:
    """Whether a column says that picks lie at several places of a third dimension."""
    return name == TOMOGRAM or (name in DEPTH and len(_depths(column)) > 1)


def _depths(column: NDArray[Any]) -> NDArray[np.float64]:
    """The different numbers in a column."""
    values = np.array([number(str(text)) for text in column.tolist()], dtype=np.float64)
    return np.unique(values[np.isfinite(values)])


def _are_ends(column: NDArray[Any]) -> bool:
    """Whether each helix has exactly two picks."""
    counts = Counter(str(text) for text in column.tolist() if str(text) not in ("", "<NA>"))
    return bool(counts) and set(counts.values()) == {2}
