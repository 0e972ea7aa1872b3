"""How coordinates of a file become pixels of the micrograph: scaled, then turned.

Other programs bin micrographs, exchange x and y, and count rows from below. What is turned or scaled
anywhere in the package is turned and scaled here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import ConfigError
from cryoquery.formats.picks import Picks
from cryoquery.formats.relion import STATING_PIXEL_SIZE

LENGTHS_IN_EXTRA = ("Width", "Height", "EstWidth", "EstHeight")
"""Columns of crYOLO's boxes that are lengths in pixels."""


def to_scaled(points: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Points (n, 2) of a micrograph in pixels of the same micrograph rescaled by ``scale``.

    The edges of the micrograph stay where they are, as in binning: pixels have a size.
    """
    return (points + 0.5) * scale - 0.5


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations: first x and y are exchanged, then rows and columns flipped."""

    swap_xy: bool
    flip_y: bool
    flip_x: bool

    @property
    def options(self) -> str:
        """The options of the import that turn labels this way; empty for labels as they are."""
        names = {"--swap-xy": self.swap_xy, "--flip-y": self.flip_y, "--flip-x": self.flip_x}
        return " ".join(name for name, chosen in names.items() if chosen)

    def after(self, first: Orientation) -> Orientation:
        """The one orientation that does what ``first`` and then this one do."""
        y, x = (first.flip_x, first.flip_y) if self.swap_xy else (first.flip_y, first.flip_x)
        return Orientation(self.swap_xy != first.swap_xy, self.flip_y != y, self.flip_x != x)

    def apply(
        self, points: NDArray[np.float64], extent: NDArray[np.float64] | tuple[float, float]
    ) -> NDArray[np.float64]:
        """Turn points (n, 2) as (y, x) in pixels of an image of size ``extent``.

        Args:
            points: (n, 2).
            extent: (height, width) of the image, or (n, 2) of the image of each point.
        """
        turned = points[:, ::-1] if self.swap_xy else points
        last = np.asarray(extent, dtype=np.float64) - 1
        return np.where([self.flip_y, self.flip_x], last - turned, turned)


ORIENTATIONS = tuple(
    Orientation(swap, y, x)
    for swap in (False, True)
    for y, x in ((False, False), (True, False), (False, True), (True, True))
)
"""All eight; the first leaves labels as they are."""


@dataclass(frozen=True)
class Placement:
    """How coordinates of a file become pixels of the micrograph: scaled first, then turned.

    Examples:
        Picks made on micrographs binned by 2, with rows counted from below:

        >>> placement = Placement.of(swap_xy=False, flip_y=True, flip_x=False, scale=2)
        >>> placement.options
        '--flip-y --scale 2'
        >>> placement.apply(np.array([[0.0, 10.0]]), (100, 80)).tolist()
        [[98.5, 20.5]]
    """

    orientation: Orientation = ORIENTATIONS[0]
    scale: float = 1.0
    """Pixels of the micrograph per pixel of the file's coordinates; 2 where picks were made on micrographs
    binned by 2."""
    shift_px: float = 0.0
    """Added to x and y of the file before all else: half a box, where corners are taken for centers."""

    def __post_init__(self) -> None:
        """Check the scale.

        Raises:
            ConfigError: it is not a positive number.
        """
        if not 0 < self.scale < np.inf:
            raise ConfigError(f"scale={self.scale:g}: must be a positive number")

    @classmethod
    def of(cls, swap_xy: bool, flip_y: bool, flip_x: bool, scale: float = 1.0) -> Placement:
        """What the options of the command line do. Raises ConfigError as on making one."""
        return cls(Orientation(swap_xy, flip_y, flip_x), scale)

    @property
    def options(self) -> str:
        """The options of the command line that do the same; empty for coordinates as they are."""
        scale = "" if self.scale == 1 else f"--scale {self.scale:.4g}"
        origin = f"--origin {'corner' if self.shift_px > 0 else 'center'}" if self.shift_px else ""
        return " ".join(part for part in (self.orientation.options, scale, origin) if part)

    def apply(
        self, points: NDArray[np.float64], shape: NDArray[np.float64] | tuple[float, float]
    ) -> NDArray[np.float64]:
        """Place points (n, 2) as (y, x) in px on a micrograph of ``shape``, see `Orientation.apply`."""
        shifted = np.asarray(points, dtype=np.float64) + self.shift_px
        return self.orientation.apply(to_scaled(shifted, self.scale), shape)

    def undo(self, points: NDArray[np.float64], shape: tuple[float, float]) -> NDArray[np.float64]:
        """The coordinates (n, 2) in the file of points that were placed on a micrograph of ``shape``."""
        turn = self.orientation
        flipped = Orientation(False, turn.flip_y, turn.flip_x).apply(points, shape)
        return to_scaled(flipped[:, ::-1] if turn.swap_xy else flipped, 1 / self.scale) - self.shift_px


AS_IN_FILE = Placement()
"""Coordinates as they stand in the file."""


def place(picks: Picks, placement: Placement, extents: NDArray[np.float64] | tuple[float, float]) -> Picks:
    """Scale and turn picks, with everything about them that is a length in pixels.

    Args:
        picks: of one micrograph or of many.
        placement: what to do.
        extents: (height, width) in pixels of the micrograph that the placed picks are for, or (n, 2) of the
            micrograph of each, and regions are dropped. Only flips need it.
    """
    scale = placement.scale
    centers = placement.apply(picks.centers_yx, extents)
    placed = picks.regions if isinstance(extents, tuple) else ()
    picks = picks.replace(
        regions=tuple(
            region._replace(polygon_yx=placement.apply(region.polygon_yx, extents)) for region in placed
        )
    )
    if not np.array_equal(centers, picks.centers_yx):
        # COCO's outlines would stay where they were.
        picks = picks.replace(extra={n: column for n, column in picks.extra.items() if n != "segmentation"})
    if scale == 1:
        return picks.replace(centers_yx=centers)
    return picks.replace(
        centers_yx=centers,
        diameters_px=None if picks.diameters_px is None else picks.diameters_px * scale,
        extra={
            name: _scaled(name, column, scale)
            for name, column in picks.extra.items()
            if name not in STATING_PIXEL_SIZE
        },
        pixel_size=None if picks.pixel_size is None else picks.pixel_size / scale,
        optics={name: column for name, column in picks.optics.items() if "PixelSize" not in name},
        shapes={name: (round(h * scale), round(w * scale)) for name, (h, w) in picks.shapes.items()},
    )


def _scaled(name: str, column: NDArray[Any], scale: float) -> NDArray[Any]:
    """A column of lengths in the new pixels; other columns, and lengths that are not there, as they are."""
    if name not in LENGTHS_IN_EXTRA:
        return column
    try:
        return column.astype(np.float64) * scale
    except (ValueError, TypeError):
        return column
