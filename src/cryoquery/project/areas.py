"""How much a region covers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cryoquery.errors import ProjectError


def check_area(kind: str, polygon: Sequence[Sequence[float]], smallest: float = 1.0) -> None:
    """See that a region covers something, by the shoelace formula.

    Logs of earlier versions may hold regions without area, so that a replay does not ask.

    Args:
        kind: of the region.
        polygon: its (y, x) vertices, pixels.
        smallest: pixels².

    Raises:
        ProjectError: it is smaller.
    """
    y0, x0 = polygon[0]
    turned = [(y - y0, x - x0) for y, x in polygon]
    pairs = zip(turned, turned[1:] + turned[:1], strict=True)
    area = abs(math.fsum(y * b - x * a for (y, x), (a, b) in pairs)) / 2
    if area < smallest:
        raise ProjectError(
            f"a region {kind!r} of {area:.3g} px²: must have at least {smallest:.3g} px²; draw it around more"
        )
