"""Masks of COCO as run lengths: column by column, zeros first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_RUNS = 1_000_000
"""Of a mask; more than an outline of a particle has."""
_BITS, _SIGN, _MORE, _FIRST = 5, 0x10, 0x20, 48


def box_of_mask(mask: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """x, y, width and height of the box around a mask.

    Args:
        mask: ``{"size": [height, width], "counts": …}``, the counts as numbers or as COCO packs them.

    Returns:
        None where it is no such mask, or an empty one.
    """
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(_is_count(n) and n > 0 for n in size):
        return None
    runs = _unpacked(counts) if isinstance(counts, str) else _counts(counts)
    height, width = size
    ends = np.cumsum([0, *runs]) if runs and sum(runs) <= height * width < 2**48 else np.zeros(1, np.int64)
    starts, ends = ends[1:-1:2], ends[2::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return None
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height
    top, bottom = _rows(starts, ends, height)
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)


def _rows(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int) -> tuple[int, int]:
    """First and last row of runs; one that goes on in the next column has all."""
    if ((ends - 1) // height > starts // height).any():
        return 0, height - 1
    return int((starts % height).min()), int(((ends - 1) % height).max())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _counts(counts: object) -> list[int]:
    good = isinstance(counts, list) and len(counts) <= MAX_RUNS and all(map(_is_count, counts))
    return counts if good and isinstance(counts, list) else []


def _unpacked(text: str) -> list[int]:
    """Five bits a character, the lowest first; from the third on what a count is above the one two before."""
    runs: list[int] = []
    value = shift = 0
    for code in text[: 4 * MAX_RUNS].encode("latin-1", "replace"):
        bits = code - _FIRST
        if not 0 <= bits < 2 * _MORE or shift > 60:
            return []
        value |= (bits & (_MORE - 1)) << shift
        shift += _BITS
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs if not shift and all(map(_is_count, runs)) else []
