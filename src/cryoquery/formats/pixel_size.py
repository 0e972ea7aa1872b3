"""Which of several statements about the pixel size to believe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cryoquery.errors import ConfigError

BELIEVABLE = (0.1, 100.0)
"""Å/px between which a pixel size of transmission micrographs lies."""
PLACEHOLDER = 1.0
"""Å/px that programs write which do not know the pixel size."""
TOLERANCE = 0.03
"""Relative difference from which two statements disagree; calibrations differ by less."""


def believable_pixel_size(value: float | None) -> float | None:
    """The pixel size (Å/px) that a file states, or None where it is missing or nonsense.

    Nonsense is what is not a number, not between 0.1 and 100 Å, or exactly 1 Å, which is what
    programs write that do not know.
    """
    if value is None or not math.isfinite(value) or value == PLACEHOLDER:
        return None
    return float(value) if BELIEVABLE[0] <= value <= BELIEVABLE[1] else None


Source = Literal["stated", "optics", "header", "unknown"]


@dataclass(frozen=True)
class PixelSize:
    """A pixel size that was decided on."""

    value: float | None
    """Å/px; None where nothing believable was said."""
    source: Source
    """By the user, in the optics of a STAR file, in the micrograph's header, or nowhere."""
    note: str
    """One line for the user where statements disagree or are not believed, else empty."""


def choose_pixel_size(
    stated: float | None = None,
    optics: float | None = None,
    header: float | None = None,
    micrograph: str = "",
) -> PixelSize:
    """Decide on the pixel size: the user's word goes first, then STAR optics, then the header.

    Args:
        stated: Å/px that the user states; always taken.
        optics: Å/px in the optics group of a STAR file.
        header: Å/px as the micrograph's header states it (`Header.stated_pixel_size`).
        micrograph: its name, for the note.

    Raises:
        ConfigError: ``stated`` is not a positive number.
    """
    if stated is not None and not (math.isfinite(stated) and stated > 0):
        raise ConfigError(f"pixel_size={stated:g}: must be positive (Å/px)")
    where = f"{micrograph}: " if micrograph else ""
    candidates: list[tuple[Source, str, float | None]] = [
        ("stated", "--pixel-size", stated),
        ("optics", "the STAR optics", believable_pixel_size(optics)),
        ("header", "its header", believable_pixel_size(header)),
    ]
    believed = [(source, name, float(value)) for source, name, value in candidates if value is not None]
    if not believed:
        said = [f"{value:g} Å/px" for value in (optics, header) if value is not None]
        doubt = f" ({' and '.join(said)} in the files is not believed)" if said else ""
        return PixelSize(None, "unknown", f"{where}pixel size unknown{doubt}; pass --pixel-size (Å/px)")
    source, name, value = believed[0]
    others = [
        f"{other:g} in {other_name}"
        for _, other_name, other in believed[1:]
        if abs(other / value - 1) > TOLERANCE
    ]
    note = f"{where}pixel size {value:g} Å/px from {name}, but {' and '.join(others)}" if others else ""
    return PixelSize(value, source, note)
