"""Whether numbers that were read can be picks on micrographs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.columns import NO_VALUE, number
from cryoquery.formats.picks import Picks

MAX_COORDINATE = 1e7
"""Pixels; what is beyond is no coordinate."""
DEPTH = frozenset(
    (
        *("z", "zcoord", "zcoordinate", "coordinatez", "rlncoordinatez", "centerz", "zpx", "zcenter", "cz"),
        *("slice", "frame", "depth", "section", "plane", "layer", "axis2"),
    )
)
"""Columns of a third dimension, without case, blanks and marks."""
TOMOGRAMS = frozenset(("rlntomoname", "tomoname", "tomogram", "tomogramname", "tomo"))
TUBE = re.compile("helix|helical|tube|filament|fibril|fiber")
"""What is in the name of a column that says which helix a pick is on."""
ENDS = (frozenset(("start", "end")), frozenset(("begin", "end")), frozenset(("start", "stop")))
"""What a column says that tells one end of a helix from the other."""
ENDS_NAMED = frozenset().union(*ENDS)
_NOWHERE = frozenset(text.lower() for text in NO_VALUE)
SLIGHTLY_BEYOND = 0.5
"""So far from 0 to 1 lie fractions of particles at the edge."""


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
    if any(_are_ends(name, column, picks.micrographs) for name, column in columns.items()):
        note = "two picks on each helix are its ends, not particles; pick along it, or leave them out"
        picks = picks.replace(notes=(*picks.notes, note))
    flat = [name for name in columns if name in DEPTH and (_depths(columns[name]) > 1).any()]
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
    """Whether all coordinates (n,) lie between 0 and 1, or nearly so, and not only on whole pixels."""
    together = np.concatenate(coordinates)
    margin = SLIGHTLY_BEYOND if len(coordinates[0]) > 1 else 0
    inside = ((together >= -margin) & (together <= 1 + margin)).all()
    return bool(len(together) and inside and (together != np.round(together)).any())


def _is_deep(name: str, column: NDArray[Any]) -> bool:
    """Whether a column says that picks lie at several places of a third dimension."""
    return name in TOMOGRAMS or (name in DEPTH and len(_depths(column)) > 1)


def _depths(column: NDArray[Any]) -> NDArray[np.float64]:
    """The different numbers in a column."""
    values = np.array([number(str(text)) for text in column.tolist()], dtype=np.float64)
    return np.unique(values[np.isfinite(values)])


def _are_ends(name: str, column: NDArray[Any], micrographs: NDArray[np.object_]) -> bool:
    """Whether a column says that each helix has exactly two picks, or which end of one a pick is."""
    may_name_ends = column.ndim == 1 and len(column) and str(column[0]).strip().lower() in ENDS_NAMED
    if column.ndim > 1 or not (TUBE.search(name) or may_name_ends):
        return False
    texts = [str(text).strip().lower() for text in column.tolist()]
    if frozenset(texts) in ENDS:
        return True
    counts = Counter(
        pair for pair in zip(micrographs.tolist(), texts, strict=True) if pair[1] not in _NOWHERE
    )
    return bool(TUBE.search(name) and counts) and set(counts.values()) == {2}
