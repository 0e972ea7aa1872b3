"""What may be said about a source that its files do not say, checked when made."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from cryoquery.config import CheckedModel
from cryoquery.errors import ConfigError
from cryoquery.formats.placement import Orientation, Placement
from cryoquery.formats.reading import Origin, Reading

Labels = Literal["auto", "coordinates", "masks"]


class SourceOptions(CheckedModel):
    """How to read a source."""

    labels: Labels = "auto"
    """coordinates: discs around the centers; masks: the masks as they are; auto: coordinates, and the
    mask where a micrograph has none."""
    pixel_size: float | None = Field(default=None, gt=0)
    """Å/px of the micrographs as stored; overrides what files say."""
    diameter_px: float | None = Field(default=None, gt=0)
    """Particle diameter in px of the micrographs as stored; overrides what files say."""
    diameter_angstrom: float | None = Field(default=None, gt=0)
    """The same in Å; needs a pixel size."""
    group_pattern: str | None = None
    """Regular expression searched in the stem; its first bracket, or all that matches, is the group."""
    group_by_diameter: bool = False
    """Split a group that mixes particles by their diameter in px."""
    swap_xy: bool = False
    """Exchange x and y of the labels; done before the flips."""
    flip_y: bool = False
    """Count the rows of the labels from the last row of the micrograph."""
    flip_x: bool = False
    """Count the columns of the labels from the last column of the micrograph."""
    scale: float = Field(default=1.0, gt=0)
    """Pixels of the micrograph per pixel of the labels' coordinates; applied before they are turned."""
    columns: str | None = None
    """Which columns of tables are what, as in ``x=1,y=2``, where the tables do not say."""
    origin: Origin | None = None
    """What x and y of tables, boxes and COCO are, where the files do not say."""
    particle_class: str | None = None
    """Of several classes in a file those that are particles, with commas between them."""
    invert: bool = False
    """Invert the contrast of the micrographs."""

    @property
    def placement(self) -> Placement:
        """How coordinates of the label files become pixels of the micrographs."""
        return Placement(Orientation(self.swap_xy, self.flip_y, self.flip_x), self.scale)

    @property
    def reading(self) -> Reading:
        """What the label files do not say."""
        return Reading.of(self.columns, self.origin, self.particle_class)

    @field_validator("group_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        check_pattern("group_pattern", pattern)
        return pattern

    @model_validator(mode="after")
    def _one_diameter(self) -> Self:
        Reading.of(self.columns)
        if self.diameter_px is not None and self.diameter_angstrom is not None:
            raise ConfigError(
                f"diameter_px={self.diameter_px:g} and diameter_angstrom={self.diameter_angstrom:g}: give one"
            )
        return self


def check_pattern(key: str, pattern: str | None) -> None:
    """Refuse what is not a regular expression.

    Raises:
        ConfigError: it does not compile.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(f"{key}={pattern!r}: not a regular expression ({error})") from None


def matched_part(pattern: str, text: str) -> str | None:
    """The first bracket of ``pattern`` found in ``text``, or all of the match; None without a match."""
    match = re.search(pattern, text)
    if match is None:
        return None
    return match.group(1) if match.re.groups and match.group(1) is not None else match.group(0)
