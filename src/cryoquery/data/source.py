"""What a dataset is built from: micrographs with their labels, from any source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.dataset import MicrographKey

MAX_DIAMETER_RATIO = 1.25
"""Micrographs of one particle agree in its diameter: largest over smallest is at most this."""


@dataclass(frozen=True)
class SourceMicrograph:
    """One labeled micrograph. Pixels are read when they are asked for, not before."""

    name: str
    """Unique within its group: the stem of its file."""
    group: str
    """What it belongs with, such as the EMPIAR id or the protein."""
    shape: tuple[int, int]
    """(height, width) in pixels."""
    read: Callable[[], NDArray[np.float32]]
    """The micrograph (height, width), intensities as recorded, first row on top."""
    particles: NDArray[np.float64]
    """(n, 3) rows (y, x, diameter) in pixels of this micrograph."""
    pixel_size: float | None = None
    """Å per pixel, where known."""
    read_mask: Callable[[], NDArray[np.bool_]] | None = None
    """A mask that came with the micrograph, (height, width) or a reduced version of it; None: draw discs."""
    split: str | None = None
    """The split its source puts it in; None: to be drawn."""
    field_of_view: str | None = None
    """Equal for near-duplicates, which show the same place; None: only itself."""
    diameter_px: float | None = None
    """Particle diameter in pixels of this micrograph, where known otherwise than from ``particles``."""

    def median_diameter(self) -> float | None:
        """Diameter of its particles in px: their median, or what is known otherwise."""
        return float(np.median(self.particles[:, 2])) if len(self.particles) else self.diameter_px

    @property
    def key(self) -> MicrographKey:
        """What identifies the micrograph within a dataset."""
        return (self.group, self.name)
