"""What may be said about a file of picks that can be read in several ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from cryoquery.errors import ConfigError

Origin = Literal["center", "corner"]
Field = Literal["x", "y", "width", "height", "diameter", "score", "micrograph", "class"]


@dataclass(frozen=True)
class Reading:
    """How to read files that do not say it themselves; what is said here goes before what they say.

    Examples:
        >>> Reading.of(columns="x=1,y=2,diameter=size", origin="corner").columns
        {'x': '1', 'y': '2', 'diameter': 'size'}
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """Of tables of text: the column that holds a `Field`, its name or its number from 1."""
    origin: Origin | None = None
    """What x and y of tables, boxes and COCO are: the center of a particle, or the corner of its box."""
    classes: tuple[str, ...] = ()
    """Those that are particles, by name or number, in a file with several."""
    ignored: tuple[str, ...] = ()
    """Those whose marks are regions to be ignored, likewise."""
    micrograph_shape: tuple[int, int] | None = None
    """(height, width) in pixels, for fractions in ``.cs`` files, and in columns that are said."""
    diameter_px: float | None = None
    """Of the particles, for picks whose file does not say."""

    @classmethod
    def of(
        cls,
        columns: str | None = None,
        origin: Origin | None = None,
        classes: str | None = None,
        ignored: str | None = None,
    ) -> Reading:
        """What the options of the command line say: ``x=1,y=2``, ``corner``, ``particle,virus``, ``ice``.

        Raises:
            ConfigError: a column of something that is not known, or x without y.
        """
        pairs = [pair.partition("=") for pair in (columns or "").split(",") if pair.strip()]
        found = {name.strip().lower(): column.strip() for name, _, column in pairs}
        known = get_args(Field)
        for name, column in found.items():
            if name not in known or not column:
                raise ConfigError(f"--columns {columns!r}: give them as x=1,y=2; known are {' '.join(known)}")
        if found and not {"x", "y"} <= found.keys():
            raise ConfigError(f"--columns {columns!r}: x and y are needed, as in x=1,y=2")
        particles, regions = (
            tuple(part.strip() for part in (said or "").split(",") if part.strip())
            for said in (classes, ignored)
        )
        return cls(found, origin, particles, regions)


AS_RECOGNIZED = Reading()
"""As the file says it."""
