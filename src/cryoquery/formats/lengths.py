"""Lengths on a micrograph as a person gives them: in pixels, in Å, or in particle diameters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from cryoquery.errors import ConfigError
from cryoquery.formats.columns import number

Unit = Literal["px", "A", "d"]

_UNITS: dict[str, Unit] = {"px": "px", "a": "A", "å": "A", "d": "d"}
_PATTERN = re.compile(r"([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zåÅ]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Length:
    """A length and its unit: ``px`` of the original micrograph, ``A`` (Å) or ``d`` (particle diameters)."""

    value: float
    unit: Unit

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def in_px(self, diameter_px: float | None, pixel_size: float | None, name: str = "length") -> float:
        """The length in pixels of a micrograph.

        Args:
            diameter_px: of the particle; needed where the unit is ``d``.
            pixel_size: Å/px; needed where the unit is ``A``.
            name: what to call it in an error.

        Raises:
            ConfigError: what the unit needs is not known.
        """
        if self.unit == "px":
            return self.value
        if self.unit == "A":
            if pixel_size is None:
                raise ConfigError(f"{name} {self}: the pixel size is not known; give --pixel-size (Å/px)")
            return self.value / pixel_size
        if diameter_px is None:
            raise ConfigError(f"{name} {self}: the particle diameter is not known; give --diameter-px")
        return self.value * diameter_px


def parse_length(text: str | Length, name: str = "length", *, zero: bool = False) -> Length:
    """Read ``0.5d``, ``54px`` or ``90A``.

    Args:
        text: a number with its unit; a `Length` is checked and returned.
        name: what to call it in an error.
        zero: whether it may be 0.

    Raises:
        ConfigError: not a number with a unit, negative, or 0 where it must not be.
    """
    length = text if isinstance(text, Length) else _parse(text, name)
    if not (length.value >= 0 if zero else length.value > 0) or not math.isfinite(length.value):
        raise ConfigError(f"{name} {text}: must be {'0 or more' if zero else 'greater than 0'}")
    return length


def _parse(text: str, name: str) -> Length:
    found = _PATTERN.fullmatch(text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    value = number(found[1]) if found else math.nan
    if unit is None or math.isnan(value):
        raise ConfigError(
            f"{name} {text!r}: give a number and its unit: 0.5d (particle diameters), 54px or 90A (Å)"
        )
    return Length(value, unit)
