"""What is labeled at a time, and at which scale micrographs become the images that a network sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from cryoquery.data.build import BuildConfig, micrograph_diameters
from cryoquery.data.preprocess import scaled_shape
from cryoquery.data.source import SourceMicrograph
from cryoquery.project.settings import PARTICLE_PX

FIELD_SIDE = 128
"""Of a field, px: seven particle diameters, some 20 particles where they are crowded."""
DISC_FRACTION = 0.5
"""Diameter of the discs that the network draws, in particle diameters: crowded particles stay apart."""
SIDES = (64, 1024)
"""Of the images of whole micrographs, px."""
SIDE_STEP = 16
MANY = 50
"""Particles on a micrograph from which on it is labeled field by field."""
ROOM = 0.25
"""Where there is room for fewer with so many per squared diameter, they need not be counted."""

Unit = Literal["micrograph", "field"]


def choose_unit(
    shape: tuple[int, int], diameter_px: float, count: Callable[[], float | None]
) -> tuple[Unit, str]:
    """What a person labels at a time: fields where a micrograph holds many particles; and why, for fields.

    Args:
        shape: (height, width) of a micrograph.
        diameter_px: of a particle on it.
        count: estimates the particles on a micrograph; None: that cannot be done.
    """
    if ROOM * shape[0] * shape[1] / diameter_px**2 < MANY:
        return "micrograph", ""
    n = count()
    if n is None or n < MANY:
        return "micrograph", ""
    side = FIELD_SIDE / PARTICLE_PX * diameter_px
    n_field = n * min(1.0, side**2 / (shape[0] * shape[1]))
    return "field", (
        f"a micrograph holds about {n:.0f} particles, too many to label at a time: fields with about "
        f"{n_field:.0f} are asked for; whole ones with --unit micrograph"
    )


def choose_images(sources: Sequence[SourceMicrograph], unit: str) -> BuildConfig:
    """At which scale and side in px the micrographs become images.

    Fields have particles of 18 px. Whole micrographs as well, where their longer side is then between 64 and
    1024 px; all have one scale (particles of one size in px), and smaller ones are padded.

    Args:
        sources: with known diameters.
        unit: ``micrograph`` or ``field``.
    """
    if unit == "field":
        return BuildConfig(field=FIELD_SIDE, particle_px=PARTICLE_PX, disc_fraction=DISC_FRACTION)
    diameters = micrograph_diameters(sources)
    per_diameter = max(max(one.shape) / diameters[one.key] for one in sources)
    side = min(max(per_diameter * PARTICLE_PX, SIDES[0]), SIDES[1])
    # Enlarged beyond the pixels that there are, images only cost time.
    smallest = min(diameters.values())
    particle_px = min(side / per_diameter, max(PARTICLE_PX, smallest))
    shapes = [scaled_shape(one.shape, particle_px / diameters[one.key]) for one in sources]
    side = max(SIDES[0], max(max(shape) for shape in shapes))
    side = math.ceil(side / SIDE_STEP) * SIDE_STEP
    return BuildConfig(field=side, particle_px=particle_px, disc_fraction=DISC_FRACTION)
