"""Where fields lie in a micrograph, and which part of it each of them stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Field:
    """A part of a scaled micrograph: upper left corner and size in px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Where in the micrograph it lies."""
        return np.s_[self.top : self.top + self.height, self.left : self.left + self.width]

    def within(self, other: Field) -> tuple[slice, slice]:
        """Where in another field it lies."""
        return Field(self.top - other.top, self.left - other.left, self.height, self.width).place


def field_grid(shape: tuple[int, int], field: int) -> list[Field]:
    """Cut (h, w) into fields of ``field`` px, row by row from the upper left, evenly spread.

    They overlap as far as they must so that all are full; only where an image is narrower than a field is
    the field smaller. A remainder narrower than a quarter of a field is left out, half of it on each side.
    """
    tops, lefts = (_starts(n, field) for n in shape)
    return [
        Field(top, left, min(field, shape[0] - top), min(field, shape[1] - left))
        for top in tops
        for left in lefts
    ]


def _starts(length: int, field: int) -> list[int]:
    if length <= field:
        return [0]
    n = (4 * length + 3 * field) // (4 * field)
    covered = min(n * field, length)
    first, steps = (length - covered) // 2, max(n - 1, 1)
    return [first + i * (covered - field) // steps for i in range(n)]


def own_parts(fields: Sequence[Field]) -> list[Field]:
    """The part of each field that is its own, of all fields of one image on a grid.

    Where neighbors overlap it ends in the middle of what they share: no pixel has two owners.
    """
    down = _own_spans({(field.top, field.top + field.height) for field in fields})
    across = _own_spans({(field.left, field.left + field.width) for field in fields})
    parts = []
    for field in fields:
        top, bottom = down[field.top, field.top + field.height]
        left, right = across[field.left, field.left + field.width]
        parts.append(Field(top, left, bottom - top, right - left))
    return parts


def _own_spans(spans: set[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """(start, end) of each span → the part that is its own."""
    ordered = sorted(spans)
    starts, ends = [start for start, _ in ordered], [end for _, end in ordered]
    for i in range(1, len(ordered)):
        if ordered[i][0] < ordered[i - 1][1]:
            starts[i] = ends[i - 1] = (ordered[i][0] + ordered[i - 1][1]) // 2
    return dict(zip(ordered, zip(starts, ends, strict=True), strict=True))
